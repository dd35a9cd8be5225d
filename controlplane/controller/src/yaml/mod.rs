//! YAML as `kubectl` takes it: documents, then a tree that knows its places, then typed objects.
//!
//! ```text
//! text ──documents──► one text a document ──tree──► Node (value, line, column) ──decode──► Gateway, Service, …
//! ```
//!
//! The tree in between earns three things. A document gets its JSON types before anybody asks for a string
//! or a number, which is what `kubectl` does, so both accept the same files. A `List` can hold kinds of all
//! sorts. And every error and every field that no type has is reported with path, line and column.

mod decode;
mod documents;
mod tree;

pub use decode::{Cursor, DecodeError, UnknownField, decode_with};
pub use documents::{Document, documents};
pub use tree::{Node, Place, SyntaxError, Value, parse};
