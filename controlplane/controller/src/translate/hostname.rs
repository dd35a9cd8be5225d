//! Host names of listeners and routes, and where they meet.
//!
//! `*.example.com` stands for every name below `example.com`, at any depth, and not for `example.com` itself. No
//! name stands for every name. Case does not matter (RFC 4343).

use std::sync::Arc;

/// The name of a listener in lower case; none for one that serves every name.
pub(super) fn of(written: Option<&str>) -> Option<Arc<str>> {
    written.filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase().into())
}

/// The longest label of a name in bytes (RFC 1035 §2.3.4), which the API's schema does not ask for.
const LABEL_MAX_BYTES: usize = 63;

/// The first label of a name that no client can ask for, since it is too long.
pub(super) fn overlong(name: &str) -> Option<&str> {
    name.split('.').find(|label| label.len() > LABEL_MAX_BYTES)
}

/// Whether some name is meant by both.
pub(super) fn meet(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one.eq_ignore_ascii_case(other),
        (Some(below), None) => other.len() > below.len() && ends(other, below),
        (None, Some(below)) => one.len() > below.len() && ends(one, below),
        (Some(a), Some(b)) => ends(a, b) || ends(b, a),
    }
}

fn ends(name: &str, with: &str) -> bool {
    let at = name.len().checked_sub(with.len());
    at.is_some_and(|at| name.as_bytes()[at..].eq_ignore_ascii_case(with.as_bytes()))
}

/// Whether a listener serves any of a route's names; a route without names has those of its listeners.
pub(super) fn serves(listener: Option<&str>, route: &[String]) -> bool {
    let Some(listener) = listener.filter(|name| !name.is_empty()) else { return true };
    route.is_empty() || route.iter().any(|name| meet(listener, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_meet_where_one_name_is_meant_by_both() {
        for (one, other, expected) in [
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "A.Example.COM", true),
            ("a.example.com", "b.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "aexample.com", false),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "*.a.example.com", true),
            ("*.example.com", "*.example.org", false),
            ("*.example.com", ".example.com", false),
        ] {
            assert_eq!(meet(one, other), expected, "{one} {other}");
            assert_eq!(meet(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_label_of_64_bytes_is_too_long() {
        let name = |bytes: usize| format!("*.{}.example.com", "x".repeat(bytes));
        assert_eq!(overlong(&name(63)), None);
        assert_eq!(overlong(&name(64)), Some("x".repeat(64).as_str()));
    }

    #[test]
    fn a_route_without_names_has_those_of_the_listener() {
        let route =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (listener, names, expected) in [
            (None, route(&["a.example.com"]), true),
            (Some(""), route(&["a.example.com"]), true),
            (Some("a.example.com"), route(&[]), true),
            (Some("a.example.com"), route(&["b.example.com", "a.example.com"]), true),
            (Some("a.example.com"), route(&["b.example.com"]), false),
        ] {
            assert_eq!(serves(listener, &names), expected, "{listener:?} {names:?}");
        }
    }
}
