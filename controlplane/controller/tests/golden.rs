//! The specification of `translate`: `tests/golden/<promise>/in.yaml` leads to `out.yaml`.
//!
//! `in.yaml` is what an operator writes; `out.yaml` is what the data plane and the L7 tier are told, and the
//! conditions of every object once both acknowledged it, or what `check` finds wrong with the text. An `observed.yaml`
//! beside it says what the box found out by itself: backends that are not well, and addresses of names. A new promise is a
//! new folder with an `in.yaml`; `PENSTOCK_UPDATE_GOLDEN=1 cargo test -p penstock-controlplane --test golden`
//! writes the `out.yaml` files, and reading their diff is the work.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{Object, Objects};
use penstock_controlplane::observed::{Named, Observed};
use penstock_controlplane::status::{self, Progress, Stamp, Statuses};
use penstock_controlplane::translate::l7::{L7, Speaks, Tls};
use penstock_controlplane::translate::{Known, Translation, service, translate_with};
use penstock_feed::model::{
    Affinity, MssClamp, OnExhaustion, OnRemoval, OnUnknown, Policies, State, Timeouts,
};
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use penstock_gateway_types::l4_policy::CheckStatus;
use penstock_gateway_types::{ListenerStatus, Time};

#[test]
fn every_promise_is_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("PENSTOCK_UPDATE_GOLDEN").is_some();
    let mut promises: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    promises.sort();
    assert!(promises.len() >= 90, "only {} promises in {}", promises.len(), folder.display());
    let mut broken = String::new();
    for promise in promises {
        let input = fs::read_to_string(promise.join("in.yaml")).unwrap();
        let seen = fs::read_to_string(promise.join("observed.yaml")).unwrap_or_default();
        let output = answer(&input, &seen);
        let golden = promise.join("out.yaml");
        if update {
            fs::write(&golden, &output).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if output != expected {
            let name = promise.file_name().unwrap_or_default().display();
            let _ = write!(broken, "\n== {name}\n{}", difference(&expected, &output));
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

/// The lines that are in one of the two only.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}\n"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(come).collect()
}

/// What a box found out by itself, as a promise has it.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Seen {
    /// Backends that are not well, by whatever check.
    unhealthy: BTreeSet<SocketAddr>,
    names: BTreeMap<String, Named>,
}

fn observed(objects: &Objects, seen: &str) -> Observed {
    if seen.is_empty() {
        return Observed::default();
    }
    let Seen { unhealthy, names } = serde_saphyr::from_str(seen).unwrap();
    let named = Observed { names, ..Observed::default() };
    let named = Arc::new(named);
    let known = Known { observed: Some(&named), ..Known::default() };
    let translation = translate_with(objects, known);
    let asked = translation.checkups.asked().cloned();
    let unhealthy = asked.filter(|asked| unhealthy.contains(&asked.backend)).collect();
    Observed { unhealthy, names: named.names.clone() }
}

fn answer(input: &str, seen: &str) -> String {
    let contents = manifest::read("in.yaml", input);
    let mut objects: Objects = contents.manifests.into_iter().map(|m| m.object).collect();
    service::stand_in(&mut objects);
    let observed = Arc::new(observed(&objects, seen));
    let known = Known { observed: Some(&observed), ..Known::default() };
    let translation = translate_with(&objects, known);
    assert_eq!(translation.state.check(), [], "a data plane would refuse the state");
    let mut out = String::new();
    section(&mut out, "findings", contents.findings.iter().map(ToString::to_string));
    let notes = translation.notes.iter();
    section(
        &mut out,
        "notes",
        notes.map(|note| format!("{}: {}", service::subject(&note.object), note.message)),
    );
    let _ = write!(out, "{}", state(&translation.state));
    let _ = write!(out, "{}", l7(&translation.l7));
    let asked = translation.checkups.asked();
    section(&mut out, "asked", asked.map(|asked| format!("{} {}", asked.place(), asked.check)));
    section(&mut out, "names", translation.names.keys().cloned());
    let _ = write!(out, "{}", conditions(&objects, &translation));
    out
}

/// What the L7 tier is told, if anything.
fn l7(l7: &L7) -> String {
    let mut out = String::new();
    for (place, listeners) in &l7.places {
        let _ = writeln!(out, "  {place}:");
        for (name, listener) in listeners {
            let hostname = listener.hostname.as_deref().unwrap_or("every host");
            let speaks = match &listener.speaks {
                Speaks::Http => "HTTP".to_owned(),
                Speaks::Https(tls) => format!("HTTPS {}", ends(tls)),
                Speaks::Tls(tls) => format!("TLS {}", ends(tls)),
                Speaks::Passthrough => "TLS passed through".to_owned(),
            };
            let _ = writeln!(out, "    {name}: {speaks} for {hostname:?}");
        }
    }
    if out.is_empty() { out } else { format!("l7:\n{out}") }
}

fn ends(tls: &Tls) -> String {
    let clients = tls.clients.as_ref().map(|clients| {
        let fallback = if clients.insecure_fallback { ", or none" } else { "" };
        format!(", clients of {} authorities{fallback}", clients.authorities.len())
    });
    format!("with {} certificates{}", tls.certificates.len(), clients.unwrap_or_default())
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<_> = lines.map(|line| format!("- {}\n", quoted(&line))).collect();
    if !lines.is_empty() {
        let _ = write!(out, "{title}:\n{}", lines.concat());
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn state(state: &State) -> String {
    let listeners: BTreeMap<String, String> = state
        .listeners
        .iter()
        .map(|(name, listener)| {
            let (vip, protocol, ports, mode) =
                (listener.vip, listener.protocol, listener.ports, listener.mode);
            let by = match listener.affinity {
                Affinity::Tuple => String::new(),
                Affinity::Source { bits } => format!(" by source/{bits}"),
            };
            let policies = policies(&listener.policies);
            let from = listener.source_ranges.as_ref().map(|ranges| {
                let ranges: Vec<_> = ranges.iter().map(|range| range.to_string()).collect();
                format!(" from [{}]", ranges.join(", "))
            });
            let from = from.unwrap_or_default();
            let serves = format!("{vip} {protocol} {ports} {mode}{by}{policies}{from}");
            (name.to_string(), format!("{serves} to {}", listener.group))
        })
        .collect();
    let mut out = String::from("listeners:\n");
    for (name, listener) in listeners {
        let _ = writeln!(out, "  {name}: {listener}");
    }
    out += "groups:\n";
    for (name, group) in &state.groups {
        let _ = writeln!(out, "  {name}:");
        for (address, member) in &group.members {
            let draining = if member.draining { " draining" } else { "" };
            let _ = writeln!(out, "    {address}: {}{draining}", member.weight);
        }
        let _ = writeln!(out, "    refused: {}", group.refused_weight);
    }
    out
}

/// Those that are not the usual ones.
fn policies(policies: &Policies) -> String {
    let Policies { on_removal, on_exhaustion, on_unknown, mss_clamp, timeouts } = *policies;
    let mut said = String::new();
    if on_removal != OnRemoval::default() {
        let _ = write!(said, " on-removal={on_removal}");
    }
    if on_exhaustion != OnExhaustion::default() {
        let _ = write!(said, " on-exhaustion={}", on_exhaustion.name());
    }
    if on_unknown != OnUnknown::default() {
        let _ = write!(said, " on-unknown={}", on_unknown.name());
    }
    if mss_clamp != MssClamp::default() {
        let _ = write!(said, " mss-clamp={mss_clamp}");
    }
    if timeouts != Timeouts::default() {
        let _ = write!(said, " timeouts={timeouts}");
    }
    said
}

fn conditions(objects: &Objects, translation: &Translation) -> String {
    let acknowledged = Some(Arc::clone(&translation.state));
    let l7 = Some(Arc::clone(&translation.l7));
    let progress = Progress { acknowledged, l7, ..Progress::default() };
    let (now, previous) = (Time(Timestamp::UNIX_EPOCH), Statuses::new());
    let stamp = Stamp { now: &now, previous: &previous };
    let mut out = String::from("status:\n");
    for (key, object) in status::conclude(objects, translation, &progress, &stamp) {
        let _ = writeln!(out, "  {key}:");
        if let Object::Gateway(gateway) = &object {
            let status = gateway.status.as_ref().unwrap();
            let addresses: Vec<_> = status.addresses.iter().map(|a| a.value.as_str()).collect();
            let _ = writeln!(out, "    addresses: [{}]", addresses.join(", "));
            let sets = status.attached_listener_sets.unwrap_or_default();
            if sets > 0 {
                let _ = writeln!(out, "    listener sets: {sets}");
            }
            out += &listeners(&status.listeners);
        }
        if let Object::Service(service) = &object {
            let status = service.status.as_ref().unwrap();
            let ingress =
                status.load_balancer.iter().flat_map(|given| given.ingress.iter().flatten());
            let ingress = ingress
                .map(|i| format!("{} ({})", i.ip.as_ref().unwrap(), i.ip_mode.as_ref().unwrap()));
            let _ = writeln!(out, "    ingress: [{}]", ingress.collect::<Vec<_>>().join(", "));
        }
        if let Object::ListenerSet(set) = &object {
            out += &listeners(&set.status.as_ref().unwrap().listeners);
        }
        if let Object::L4Policy(policy) = &object {
            out += &checks(&policy.status.as_ref().unwrap().checks);
        }
        if let Object::Backend(backend) = &object {
            out += &checks(&backend.status.as_ref().unwrap().checks);
            for name in &backend.status.as_ref().unwrap().names {
                let _ =
                    writeln!(out, "    name {}: [{}]", name.hostname, name.addresses.join(", "));
            }
        }
        out += &parts(&object);
    }
    out
}

fn checks(checks: &[CheckStatus]) -> String {
    let mut out = String::new();
    for CheckStatus { target, backends, unhealthy, fail_open, unhealthy_backends } in checks {
        let open = if *fail_open { ", all serve" } else { "" };
        let down = unhealthy_backends.join(", ");
        let counts = format!("{{backends: {backends}, unhealthy: {unhealthy}{open}}}");
        let _ = writeln!(out, "    check {target}: {counts} [{down}]");
    }
    out
}

fn listeners(listeners: &[ListenerStatus]) -> String {
    let mut out = String::new();
    for listener in listeners {
        let kinds: Vec<_> = listener.supported_kinds.iter().map(|k| k.kind.as_str()).collect();
        let (name, kinds, routes) = (&listener.name, kinds.join(", "), listener.attached_routes);
        let _ = writeln!(out, "    listener {name}: {{kinds: [{kinds}], routes: {routes}}}");
    }
    out
}

/// The conditions of each part of an object: those that hold for the usual reason on one line, and every
/// other with its message.
fn parts(object: &Object) -> String {
    let mut usual: Vec<(String, Vec<String>)> = Vec::new();
    let mut others = String::new();
    for (part, condition) in status::conditions(object) {
        if usual.last().is_none_or(|(last, _)| *last != part) {
            usual.push((part.clone(), Vec::new()));
        }
        let telling = ["refused", "older"].iter().any(|word| condition.message.contains(word));
        let (type_, status, reason) = (&condition.type_, &condition.status, &condition.reason);
        match reason.as_str() {
            "NoConflicts" => {}
            reason if reason == type_ && !telling => {
                usual.last_mut().unwrap().1.push(type_.clone());
            }
            _ => {
                let part = if part.is_empty() { String::new() } else { format!("{part} ") };
                let message = quoted(&condition.message);
                let _ = writeln!(others, "    {part}{type_}: [{status}, {reason}, {message}]");
            }
        }
    }
    let mut out = String::new();
    for (part, types) in usual.iter().filter(|(_, types)| !types.is_empty()) {
        let part = if part.is_empty() { "itself" } else { part };
        let _ = writeln!(out, "    {part} is: [{}]", types.join(", "));
    }
    out + &others
}
