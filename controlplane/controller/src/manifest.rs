//! A file's text to the objects in it.
//!
//! The form is the one `kubectl` takes: one or many documents, `List` kinds, namespaces that default to
//! `default`. What is wrong is wrong alone: a document that is no YAML, an object of a kind we do not read and
//! a value that does not fit its type or its schema each become a [`Finding`], and the rest of the file is read.

use std::collections::BTreeMap;

use penstock_gateway_types::OWN_GROUP;

use crate::finding::{Finding, Severity};
use crate::object::{self, Kind, NamespacedName, Object, ObjectKey};
use crate::schema;
use crate::yaml::{self, Document, Node, Place, Value};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// An object and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The object; its namespace is filled in.
    pub object: Object,
    /// Where it begins.
    pub place: Place,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Its objects, in the order of the file, each name once.
    pub manifests: Vec<Manifest>,
    /// Objects that are refused, and whose names could be read.
    pub refused: Vec<ObjectKey>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
    /// Whether every document was YAML. If not, the file may be half-written.
    pub whole: bool,
    /// Whether the file looks cut off: it is empty, ends within a line, or its last document is wrong. Then
    /// objects that are missing may just not have been written yet.
    pub cut: bool,
}

/// Reads a file's text. `file` is its name in findings.
#[must_use]
pub fn read(file: &str, text: &str) -> Contents {
    let contents = Contents { whole: true, ..Contents::default() };
    let mut reader = Reader { file, contents, lines: BTreeMap::new() };
    let mut last_is_wrong = false;
    for document in yaml::documents(text) {
        let before = reader.errors();
        reader.document(document);
        last_is_wrong = reader.errors() > before;
    }
    reader.contents.cut = last_is_wrong || !text.ends_with('\n');
    reader.contents
}

struct Reader<'a> {
    file: &'a str,
    contents: Contents,
    /// Where each object was first met.
    lines: BTreeMap<ObjectKey, u32>,
}

impl Reader<'_> {
    fn errors(&self) -> usize {
        let findings = self.contents.findings.iter();
        findings.filter(|finding| finding.severity == Severity::Error).count()
    }

    fn document(&mut self, document: Document<'_>) {
        match yaml::parse(document) {
            Ok(node) => self.node(&node),
            Err(error) => {
                self.contents.whole = false;
                self.find(error.place, Severity::Error, None, format!("no valid YAML: {error}"));
            }
        }
    }

    fn node(&mut self, node: &Node) {
        match (node.get("kind").and_then(Node::text), node.get("items").map(|items| &items.value)) {
            (Some(kind), Some(Value::List(items))) if kind.ends_with("List") => {
                let inherited = kind.trim_end_matches("List");
                let api_version = node.get("apiVersion").and_then(Node::text).unwrap_or_default();
                let inherited = Some((inherited, api_version)).filter(|(kind, _)| !kind.is_empty());
                items.iter().for_each(|item| self.object(item, inherited));
            }
            _ => self.object(node, None),
        }
    }

    /// Reads one object. The items of a typed list may leave kind and version to the list.
    fn object(&mut self, node: &Node, inherited: Option<(&str, &str)>) {
        let field = |key| node.get(key).and_then(Node::text);
        let kind = field("kind").or(inherited.map(|(kind, _)| kind));
        let api_version = field("apiVersion").or(inherited.map(|(_, version)| version));
        let (Some(kind), Some(api_version)) = (kind, api_version) else {
            let message = "no Kubernetes object: it needs the fields `apiVersion` and `kind`";
            return self.find(node.place, Severity::Error, None, message.to_owned());
        };
        match known_kind(api_version, kind) {
            Ok(kind) => self.known(kind, node),
            Err(refusal) => {
                let named = node.get("metadata").and_then(|m| m.get("name")).and_then(Node::text);
                let name = named.map(|name| format!(" {name}")).unwrap_or_default();
                self.find(node.place, Severity::Error, None, format!("{kind}{name}: {refusal}"));
            }
        }
    }

    fn known(&mut self, kind: Kind, node: &Node) {
        let key = match key(kind, node) {
            Ok(key) => key,
            Err((place, message)) => {
                return self.find(place, Severity::Error, None, format!("{kind}: {message}"));
            }
        };
        if let Some(line) = self.lines.get(&key) {
            let message = format!("given twice: line {line} has it already, and that one is read");
            return self.find(node.place, Severity::Error, Some(key), message);
        }
        self.lines.insert(key.clone(), node.place.line);
        match yaml::decode_with(node, |cursor| object::deserialize(kind, cursor)) {
            Ok((object, unknown)) => {
                if kind.group() == OWN_GROUP
                    && let Some(field) = unknown.first()
                {
                    // As `kubectl` does: what a misspelt field was to limit would go unlimited.
                    let message =
                        format!("unknown field {}: the kind has none of that name", field.path);
                    return self.refuse(field.place, key, message);
                }
                for field in unknown {
                    let message = format!("unknown field {}: it has no effect", field.path);
                    self.find(field.place, Severity::Warning, Some(key.clone()), message);
                }
                match schema::check(&object) {
                    Ok(()) => self.keep(object, &key, node.place),
                    Err(fault) => {
                        let place = node.nearest(&fault.path).place;
                        self.refuse(place, key, format!("{}: {}", fault.path, fault.message));
                    }
                }
            }
            Err(error) => self.refuse(error.place(), key, error.to_string()),
        }
    }

    fn refuse(&mut self, place: Place, key: ObjectKey, message: String) {
        self.find(place, Severity::Error, Some(key.clone()), message);
        self.contents.refused.push(key);
    }

    fn keep(&mut self, mut object: Object, key: &ObjectKey, place: Place) {
        let namespace = Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty());
        object.metadata_mut().namespace = namespace;
        self.contents.manifests.push(Manifest { object, place });
    }

    fn find(
        &mut self,
        place: Place,
        severity: Severity,
        object: Option<ObjectKey>,
        message: String,
    ) {
        let file = self.file.to_owned();
        self.contents.findings.push(Finding {
            file,
            place: Some(place),
            severity,
            object,
            message,
        });
    }
}

/// The kind, or why we do not read it.
fn known_kind(api_version: &str, kind: &str) -> Result<Kind, String> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let found =
        Kind::ALL.into_iter().find(|known| known.as_str() == kind && known.group() == group);
    match found {
        Some(known) if known.versions().contains(&version) => Ok(known),
        Some(known) => {
            Err(format!("{api_version} is not read: write apiVersion {}", known.api_version()))
        }
        None => {
            let read: Vec<_> = Kind::ALL.into_iter().map(Kind::as_str).collect();
            Err(format!("{api_version} {kind} is not read: the kinds are {}", read.join(", ")))
        }
    }
}

fn key(kind: Kind, node: &Node) -> Result<ObjectKey, (Place, String)> {
    let metadata =
        node.get("metadata").ok_or((node.place, "the field `metadata` is missing".into()))?;
    let text = |key: &str, max: usize| match metadata.get(key) {
        Some(Node { place, value: Value::Text(text) }) => match valid_name(text, max) {
            true => Ok(Some(text.as_str())),
            false => Err((*place, bad_name(key, text, max))),
        },
        None | Some(Node { value: Value::Null, .. }) => Ok(None),
        Some(other) => Err((other.place, format!("metadata.{key} must be text: put it in quotes"))),
    };
    let name = text("name", 253)?.ok_or((metadata.place, "metadata.name is missing".to_owned()))?;
    let namespace = text("namespace", 63)?.unwrap_or(DEFAULT_NAMESPACE);
    Ok(match kind.is_namespaced() {
        true => ObjectKey::of(kind, &NamespacedName::new(namespace, name)),
        false => ObjectKey::cluster(kind, name),
    })
}

/// Kubernetes' rule for names (RFC 1123 subdomain): it also keeps them safe as names of files.
pub(crate) fn valid_name(text: &str, max: usize) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|b| alphanumeric(*b))
            && bytes.last().is_some_and(|b| alphanumeric(*b))
            && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
    };
    text.len() <= max && text.split('.').all(label)
}

fn bad_name(key: &str, text: &str, max: usize) -> String {
    let shown: String = text.chars().take(80).collect();
    format!(
        "metadata.{key} {shown:?} is no valid name: at most {max} lower-case letters, digits, '-' and '.', \
         with a letter or digit at both ends"
    )
}
