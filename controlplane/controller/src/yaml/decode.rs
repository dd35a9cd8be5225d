//! From the tree to a typed object, with path and place in every error.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{Node, Place, Value};

/// A value that does not fit its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The field, for instance `spec.listeners[0].port`; empty for the object itself.
    pub path: String,
    /// Where the value stands; `None` until the error has left the value it is about.
    place: Option<Place>,
    /// What is wrong with it.
    pub message: String,
}

impl DecodeError {
    /// Where the value stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.unwrap_or(Place { line: 1, column: 1 })
    }

    /// Says where, unless a deeper value already did.
    fn at(mut self, cursor: &Cursor<'_, '_>) -> Self {
        if self.place.is_none() {
            self.place = Some(cursor.node.place);
            self.path = cursor.path.to_string();
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: String::new(), place: None, message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("{found} does not fit: {} belongs here", plain(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field `{field}` is missing"))
    }
}

/// What a field expects, in words for people who do not write Rust.
fn plain(expected: &dyn de::Expected) -> String {
    match expected.to_string().as_str() {
        "i32" => "a number that fits 32 bits".to_owned(),
        "i64" | "u16" | "u32" | "u64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

/// A field that its object does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// The field, for instance `spec.listeners[0].prot`.
    pub path: String,
    /// Where its key or value stands.
    pub place: Place,
}

/// Decodes an object by `read`, and lists the fields that it does not have.
///
/// # Errors
/// [`DecodeError`] for the first value that does not fit.
pub fn decode_with<'de, T>(
    node: &'de Node,
    read: impl FnOnce(Cursor<'_, 'de>) -> Result<T, DecodeError>,
) -> Result<(T, Vec<UnknownField>), DecodeError> {
    let unknown = RefCell::new(Vec::new());
    let cursor = Cursor { node, path: Path::Root, unknown: &unknown };
    let object = read(cursor).map_err(|error| error.at(&cursor))?;
    Ok((object, unknown.into_inner()))
}

/// How we came to a value: a list that lives on the stack.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A place in the tree, as serde reads it: the tree lives for `'de`, the path to here for `'p`.
#[derive(Clone, Copy)]
pub struct Cursor<'p, 'de> {
    node: &'de Node,
    path: Path<'p>,
    unknown: &'p RefCell<Vec<UnknownField>>,
}

impl<'de> Cursor<'_, 'de> {
    fn unexpected(&self) -> Unexpected<'de> {
        match &self.node.value {
            Value::Null => Unexpected::Other("nothing"),
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Unsigned(value) => Unexpected::Unsigned(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text(value) => Unexpected::Str(value),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn walk<V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(Items { cursor: self, items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Fields { cursor: self, entries, next: 0 }),
        }
    }

    /// The cursor of a child of this one.
    fn child<'c>(&'c self, node: &'de Node, path: Path<'c>) -> Cursor<'c, 'de> {
        Cursor { node, path, unknown: self.unknown }
    }
}

impl<'de> de::Deserializer<'de> for Cursor<'_, 'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.walk(visitor).map_err(|error| error.at(&self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    /// Called for exactly the fields that a type does not have.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let field = UnknownField { path: self.path.to_string(), place: self.node.place };
        self.unknown.borrow_mut().push(field);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

struct Items<'c, 'p, 'de> {
    cursor: &'c Cursor<'p, 'de>,
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let item = self.cursor.child(node, Path::Index(&self.cursor.path, self.next));
        self.next += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.at(&item))
    }
}

struct Fields<'c, 'p, 'de> {
    cursor: &'c Cursor<'p, 'de>,
    entries: &'de [(String, Place, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Fields<'_, '_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, ..)) = self.entries.get(self.next) else { return Ok(None) };
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some((key, _, node)) = self.entries.get(self.next) else {
            return Err(de::Error::custom("a value without a key"));
        };
        let field = self.cursor.child(node, Path::Key(&self.cursor.path, key));
        self.next += 1;
        seed.deserialize(field).map_err(|error| error.at(&field))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use penstock_gateway_types::{EndpointSlice, Gateway, Service};

    use super::super::{documents, parse};
    use super::*;

    fn decode<'de, T: Deserialize<'de>>(
        node: &'de Node,
    ) -> Result<(T, Vec<UnknownField>), DecodeError> {
        decode_with(node, |cursor| T::deserialize(cursor))
    }

    fn tree(text: &str) -> Node {
        parse(documents(text)[0]).unwrap()
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_path_and_place() {
        let gateway = "kind: Gateway\nmetadata: {name: web}\nspec:\n  gatewayClassName: penstock\n";
        for (promise, rest, expected) in [
            (
                "a word for a number",
                "  listeners:\n  - {name: a, protocol: TCP, port: eighty}\n",
                (
                    "spec.listeners[0].port: string \"eighty\" does not fit: a number that fits 32 bits belongs here",
                    6,
                    36,
                ),
            ),
            (
                "a number that no field holds",
                "  listeners:\n  - {name: a, protocol: TCP, port: 99999999999}\n",
                (
                    "spec.listeners[0].port: integer `99999999999` does not fit: a number that fits 32 bits belongs here",
                    6,
                    36,
                ),
            ),
            (
                "a field left out",
                "  listeners:\n  - {name: a, protocol: TCP}\n",
                ("spec.listeners[0]: the field `port` is missing", 6, 5),
            ),
            (
                "nothing where a list belongs",
                "  listeners:\n",
                ("spec.listeners: nothing does not fit: a list belongs here", 5, 12),
            ),
        ] {
            let node = tree(&format!("{gateway}{rest}"));
            let error = decode::<Gateway>(&node).expect_err(promise);
            let place = error.place();
            assert_eq!(
                (error.to_string().as_str(), place.line, place.column),
                expected,
                "{promise}"
            );
        }
    }

    #[test]
    fn a_field_that_no_type_has_is_listed() {
        let node = tree(
            "kind: Gateway\nmetadata: {name: web, nam: x}\nspec:\n  gatewayClassName: p\n  listeners:\n  - {name: a, protocol: TCP, port: 1, prot: 2}\n",
        );
        let (_, unknown) = decode::<Gateway>(&node).unwrap();
        let found: Vec<_> = unknown.iter().map(|u| (u.path.as_str(), u.place.line)).collect();
        assert_eq!(found, [("metadata.nam", 2), ("spec.listeners[0].prot", 6)]);
    }

    #[test]
    fn the_objects_of_kubernetes_decode_too() {
        let node = tree(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, creationTimestamp: null}\nspec:\n  ports:\n  - {port: 80, targetPort: http}\n  - {port: 81, targetPort: 8081}\n",
        );
        let (service, unknown) = decode::<Service>(&node).unwrap();
        assert_eq!(unknown, []);
        assert_eq!(service.spec.unwrap().ports.unwrap().len(), 2);
        let node = tree(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  conditions: {redy: true}\n",
        );
        let (slice, unknown) = decode::<EndpointSlice>(&node).unwrap();
        assert_eq!(slice.endpoints.len(), 1);
        assert_eq!(unknown[0].path, "endpoints[0].conditions.redy");
    }
}
