//! Who is let in: the Boxes that there are now, and which of them are revoked.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_gateway_types::boxes::Box as BoxObject;

use crate::link::message::{Reason, Refused};
use crate::object::Objects;
use crate::pki::Identity;

/// The Boxes as links look at them. What is not known yet refuses nobody for good.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// Whether the Boxes have been read.
    pub known: bool,
    boxes: Arc<BTreeMap<String, Standing>>,
}

/// One Box.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    incarnation: String,
    revoked: bool,
}

/// What tells a Box from others of its name: its uid, or when it was made.
#[must_use]
pub fn incarnation(object: &BoxObject) -> String {
    let metadata = &object.metadata;
    let created = || metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    metadata.uid.clone().or_else(created).unwrap_or_default()
}

impl Admission {
    /// By the objects in force.
    #[must_use]
    pub fn of(objects: &Objects) -> Self {
        let standing = |object: &Arc<BoxObject>| Standing {
            incarnation: incarnation(object),
            revoked: object.spec.revoked,
        };
        let boxes = objects.boxes.iter().map(|(name, object)| (name.clone(), standing(object)));
        Self { known: true, boxes: Arc::new(boxes.collect()) }
    }

    /// Whether who proved to be `identity` may come in.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, identity: &Identity) -> Result<(), Refused> {
        let name = identity.name();
        match self.boxes.get(name) {
            _ if !self.known => {
                Err(Refused::new(Reason::Busy, "this controller has not read its objects yet"))
            }
            None => {
                let message = format!("there is no Box {name}: create it, and let the box join");
                Err(Refused::new(Reason::UnknownBox, message))
            }
            Some(known) if known.revoked => {
                Err(Refused::new(Reason::Revoked, format!("Box {name} is revoked")))
            }
            Some(known) if known.incarnation != identity.incarnation() => {
                let message = format!(
                    "the certificate is of a Box {name} that was deleted: let the box join again"
                );
                Err(Refused::new(Reason::UnknownBox, message))
            }
            Some(_) => Ok(()),
        }
    }

    /// Who the Box `name` is, for one that wants to join as it.
    ///
    /// # Errors
    /// Why nobody may.
    pub fn join(&self, name: &str) -> Result<Identity, Refused> {
        let incarnation = self.boxes.get(name).map(|it| it.incarnation.as_str());
        let identity = Identity::new(name, incarnation.unwrap_or("none"));
        let identity = identity.map_err(|fault| Refused::new(Reason::UnknownBox, fault.0))?;
        self.admit(&identity).map(|()| identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn a_certificate_is_as_good_as_the_box_it_names() {
        let text = |uid: &str, more: &str| {
            format!(
                "apiVersion: penstock.dev/v1alpha1\nkind: Box\nmetadata: {{name: edge-1, uid: {uid}}}\nspec: {{{more}}}\n"
            )
        };
        let of = |text: &str| -> Admission {
            let read = manifest::read("t.yaml", text);
            Admission::of(&read.manifests.into_iter().map(|m| m.object).collect())
        };
        let identity = Identity::new("edge-1", "one").unwrap();
        for (promise, admission, expected) in [
            ("nothing is known yet", Admission::default(), Err(Reason::Busy)),
            ("there is no Box", of(""), Err(Reason::UnknownBox)),
            ("there is one", of(&text("one", "")), Ok(())),
            ("it is revoked", of(&text("one", "revoked: true")), Err(Reason::Revoked)),
            ("it is another", of(&text("two", "")), Err(Reason::UnknownBox)),
        ] {
            let found = admission.admit(&identity).map_err(|refused| refused.reason);
            assert_eq!(found, expected, "{promise}");
        }
        assert_eq!(of(&text("one", "")).join("edge-1"), Ok(identity));
        assert!(of(&text("one", "")).join("edge-2").is_err());
        assert!(of(&text("one", "revoked: true")).join("edge-1").is_err());
    }
}
