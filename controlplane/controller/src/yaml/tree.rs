//! One document as a tree in which every value knows its line and column.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Budget, Spanned};

use super::Document;

/// The most values that all aliases of a document stand for: far more than anybody writes by hand, and still
/// little memory.
const MOST_ALIASED: usize = 100_000;
/// The deepest nesting.
const MOST_NESTED: usize = 64;

/// A line and a column of a file, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A value by its JSON type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits.
    Integer(i64),
    /// An integer above [`i64::MAX`].
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file: key, its place, value.
    Map(Vec<(String, Place, Node)>),
}

impl Node {
    /// The value under `key`, if this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, ..)| k == key).map(|(.., node)| node),
            _ => None,
        }
    }

    /// The value at a path such as `spec.listeners[0].port`, or the nearest above it that is there.
    #[must_use]
    pub fn nearest(&self, path: &str) -> &Node {
        let steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let mut node = self;
        for step in steps {
            let next = match &node.value {
                Value::List(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
                _ => node.get(step),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The text, if this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A document that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where the parser gave up.
    pub place: Place,
    /// What it met there.
    pub message: String,
}

/// Reads one document.
///
/// Bounded: aliases are expanded within a budget, so a small file cannot become a large tree, and so is the
/// nesting.
///
/// # Errors
/// [`SyntaxError`] with the place in the file; a duplicate key is one.
pub fn parse(document: Document<'_>) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: budget(),
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_ALIASED },
        strict_booleans: true,
        with_snippet: false,
    };
    let mut node: Node = serde_saphyr::from_str_with_options(document.text, options)
        .map_err(|error| syntax_error(&error, document.lines_before))?;
    node.shift(document.lines_before);
    Ok(node)
}

/// The library's budget, with room for EndpointSlices of tens of thousands of endpoints.
fn budget() -> Option<Budget> {
    serde_saphyr::budget! {
        max_events: 16_000_000,
        max_nodes: 8_000_000,
        max_depth: MOST_NESTED,
    }
}

fn syntax_error(error: &serde_saphyr::Error, lines_before: u32) -> SyntaxError {
    let place = error.location().map_or(Place { line: 1, column: 1 }, |at| Place {
        line: at.line() as u32,
        column: at.column() as u32,
    });
    let place = Place { line: place.line.max(1) + lines_before, column: place.column.max(1) };
    SyntaxError { place, message: fault(error) }
}

/// What is wrong, without the place, and for people who do not call the library.
fn fault(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::AliasError { error, .. } => fault(error),
        Error::AliasReplayLimitExceeded { .. } => {
            format!(
                "its aliases stand for more than {MOST_ALIASED} values: write out what they name"
            )
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias stands within what it names: write it out".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("it is nested deeper than {MOST_NESTED}: no object is")
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or_default();
            format!("the key `{key}` is given twice: keep one")
        }
        other => {
            let text = other.to_string().lines().collect::<Vec<_>>().join(" ");
            // It ends with the place, counted from the top of the document.
            text.split_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned()
        }
    }
}

impl Node {
    /// Counts lines from the top of the file instead of the top of the document.
    fn shift(&mut self, lines: u32) {
        self.place.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, place, node)| {
                place.line += lines;
                node.shift(lines);
            }),
            _ => {}
        }
    }
}

fn place_of<T>(spanned: &Spanned<T>) -> Place {
    Place { line: spanned.referenced.line() as u32, column: spanned.referenced.column() as u32 }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { place: place_of(&spanned), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let place = place_of(&key);
            entries.push((key.value, place, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::super::documents;
    use super::*;

    fn read(text: &str) -> Result<Node, SyntaxError> {
        parse(documents(text)[0])
    }

    #[test]
    fn a_value_has_its_json_type_and_its_place() {
        let node =
            read("# one\n---\nport: 80\nname: \"80\"\nyes: yes\nlist:\n  - 1.5\n  - ~\n").unwrap();
        let get = |key: &str| node.get(key).cloned().unwrap();
        assert_eq!(
            get("port"),
            Node { place: Place { line: 3, column: 7 }, value: Value::Integer(80) }
        );
        assert_eq!(get("name").value, Value::Text("80".into()));
        assert_eq!(get("yes").value, Value::Text("yes".into()));
        let Value::List(items) = get("list").value else { panic!("a list") };
        assert_eq!(
            items[0],
            Node { place: Place { line: 7, column: 5 }, value: Value::Float(1.5) }
        );
        assert_eq!(items[1].value, Value::Null);
    }

    #[test]
    fn a_fault_is_reported_where_it_stands_in_the_file() {
        for (promise, text, line) in [
            ("a tab for indentation", "a: 1\n---\nb:\n\tc: 1\n", 4),
            ("a bracket that never closes", "a: 1\n---\nb: [1, 2\n", 3),
            ("a key given twice", "a: 1\n---\nb: 1\nb: 2\n", 4),
        ] {
            let second = documents(text)[1];
            let error = parse(second).expect_err(promise);
            assert!(error.place.line >= line, "{promise}: {error:?}");
            assert!(!error.message.contains('\n'), "{promise}: {error:?}");
        }
    }

    fn bomb() -> String {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (name, before) in ('b'..='j').zip('a'..) {
            bomb += &format!(
                "{name}: &{name} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"
            );
        }
        bomb
    }

    #[test]
    fn a_fault_says_what_to_do_about_the_file() {
        for (text, expected) in [
            (bomb(), "its aliases stand for more than 100000 values: write out what they name"),
            ("a: &a [*a]\n".into(), "an alias stands within what it names: write it out"),
            (
                format!("{}{}\n", "[".repeat(65), "]".repeat(65)),
                "it is nested deeper than 64: no object is",
            ),
            ("a: 1\na: 2\n".into(), "the key `a` is given twice: keep one"),
            ("a:\n\tb: 1\n".into(), "tabs disallowed within this context (block indentation)"),
            ("a: [1\n".into(), "unclosed bracket '['"),
        ] {
            // Built without optimisation, the parser needs more stack than a test's thread has.
            let thread = std::thread::Builder::new().stack_size(16 << 20);
            let read = thread.spawn(move || read(&text).unwrap_err().message).unwrap();
            assert_eq!(read.join().unwrap(), expected);
        }
    }
}
