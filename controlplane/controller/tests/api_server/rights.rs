//! Who may do what, as an RBAC manifest says it, and what of it was used.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

/// One verb of one rule: namespace of the role (empty: of all), API group, resource, the only name (empty: any), verb.
type Grant = (String, String, String, String, String);

/// What one user may do.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    granted: BTreeSet<Grant>,
    used: BTreeSet<Grant>,
    /// What was asked for in vain.
    pub refused: BTreeSet<String>,
}

impl Rights {
    /// What the ClusterRoles and Roles of a manifest grant.
    pub fn of(manifest: &str) -> Self {
        let mut rights = Self::default();
        for document in manifest.split("\n---\n") {
            let role: Value = serde_saphyr::from_str(document).unwrap();
            if !matches!(role["kind"].as_str(), Some("ClusterRole" | "Role")) {
                continue;
            }
            let namespace = text(&role["metadata"]["namespace"]);
            for rule in role["rules"].as_array().unwrap() {
                rights.grant(&namespace, rule);
            }
        }
        rights
    }

    fn grant(&mut self, namespace: &str, rule: &Value) {
        let list = |field: &str| -> Vec<String> {
            let items = rule[field].as_array().cloned().unwrap_or_default();
            items.iter().map(text).collect()
        };
        let names = match list("resourceNames") {
            names if names.is_empty() => vec![String::new()],
            names => names,
        };
        for group in list("apiGroups") {
            for resource in list("resources") {
                for name in &names {
                    for verb in list("verbs") {
                        let namespace = namespace.to_owned();
                        let grant =
                            (namespace, group.clone(), resource.clone(), name.clone(), verb);
                        self.granted.insert(grant);
                    }
                }
            }
        }
    }

    /// Whether a request may pass; an apply of what does not exist creates it.
    pub fn ask(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        exists: bool,
    ) -> Result<(), String> {
        let asked = Asked::of(method, path, query);
        let mut verbs = vec![asked.verb];
        if method == Method::PATCH && !exists {
            verbs.push("create");
        }
        for verb in verbs {
            let allows = |(namespace, group, resource, name, granted): &&Grant| {
                (namespace.is_empty() || *namespace == asked.namespace)
                    && *group == asked.group
                    && *resource == asked.resource
                    && (name.is_empty() || *name == asked.name)
                    && granted == verb
            };
            let Some(grant) = self.granted.iter().find(allows) else {
                let Asked { group, resource, name, .. } = asked;
                let refusal = format!(
                    "user cannot {verb} resource {resource:?} {name:?} in API group {group:?}"
                );
                self.refused.insert(refusal.clone());
                return Err(refusal);
            };
            self.used.insert(grant.clone());
        }
        Ok(())
    }

    /// What was granted and never used.
    pub fn unused(&self) -> Vec<&Grant> {
        self.granted.difference(&self.used).collect()
    }

    /// As if `other` had been used, too.
    pub fn and_used(mut self, other: &Self) -> Self {
        self.used.extend(other.used.iter().cloned());
        self.refused.extend(other.refused.iter().cloned());
        self
    }
}

struct Asked {
    verb: &'static str,
    namespace: String,
    group: String,
    resource: String,
    name: String,
}

impl Asked {
    fn of(method: &Method, path: &str, query: &str) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next() {
            Some("api") => String::new(),
            _ => parts.next().unwrap_or_default().to_owned(),
        };
        let mut rest: Vec<&str> = parts.skip(1).collect();
        let mut namespace = "";
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = rest[1];
            rest.drain(..2);
        }
        let mut resource = rest[0].to_owned();
        if let Some(subresource) = rest.get(2) {
            resource = format!("{resource}/{subresource}");
        }
        let is_one = rest.len() > 1;
        // A list or watch of one name counts as one of that name.
        let of_name =
            query.split('&').find_map(|part| part.strip_prefix("fieldSelector=metadata.name"));
        let of_name = of_name.map(|rest| rest.trim_start_matches("%3D").trim_start_matches('='));
        let name = rest.get(1).copied().or(of_name).unwrap_or_default().to_owned();
        let verb = match method.as_str() {
            "GET" if query.contains("watch=true") => "watch",
            "GET" if is_one => "get",
            "GET" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => panic!("{other}"),
        };
        Self { verb, namespace: namespace.to_owned(), group, resource, name }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
