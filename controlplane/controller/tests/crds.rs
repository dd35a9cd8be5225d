//! The CRDs in `deploy/kubernetes/crds` are those of the types, and their rules are evaluated here as an API server does.

use std::fs;
use std::path::Path;

use penstock_controlplane::crd;
use penstock_controlplane::manifest;

const HEAD: &str = "# Generated from controlplane/gateway-types:\n# PENSTOCK_UPDATE_GOLDEN=1 cargo test -p penstock-controlplane --test crds\n";

#[test]
fn the_crds_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/crds");
    let update = std::env::var_os("PENSTOCK_UPDATE_GOLDEN").is_some();
    let mut names = Vec::new();
    for (kind, definition) in crd::all() {
        let text = format!("{HEAD}{}", serde_saphyr::to_string(&definition).unwrap());
        let name = format!("{}.yaml", kind.plural());
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(&name), &text).unwrap();
        }
        let kept = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(kept == text, "{name} differs from its types: write it anew as its head says");
        names.push(name);
    }
    let kept = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut kept: Vec<_> = kept.map(|name| name.into_string().unwrap()).collect();
    kept.sort();
    names.sort();
    assert_eq!(kept, names, "no CRD of a kind that is no more");
}

/// What `check` says of a spec of a kind: the path and what is wrong, or nothing.
fn finding(kind: &str, spec: &str) -> String {
    let text = format!(
        "apiVersion: penstock.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: it}}\nspec: {spec}\n"
    );
    let contents = manifest::read("in.yaml", &text);
    let messages: Vec<_> = contents.findings.iter().map(|f| f.message.clone()).collect();
    assert_eq!(messages.is_empty(), contents.manifests.len() == 1, "{messages:?}");
    messages.join("; ")
}

/// A spec of a kind, and how what `check` says of it begins; nothing if it is well. `scripts/test cluster` has them judged
/// by a real API server.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: String,
    spec: String,
    #[serde(default)]
    says: String,
}

/// What an API server would refuse is refused in a file, by the same schema and the same rules.
#[test]
fn a_rule_holds_in_files_as_in_a_cluster() {
    let rows: Vec<Row> = serde_saphyr::from_str(include_str!("crds.yaml")).unwrap();
    assert!(rows.len() > 50, "only {} rows", rows.len());
    for Row { kind, spec, says } in rows {
        let found = finding(&kind, &spec);
        assert!(found.starts_with(&says) && found.is_empty() == says.is_empty(), "{spec}: {found}");
    }
}
