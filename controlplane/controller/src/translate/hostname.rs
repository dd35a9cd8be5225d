//! Host names of listeners and routes, and where they meet.
//!
//! `*.example.com` stands for every name below `example.com`, at any depth, and not for `example.com` itself. No
//! name stands for every name. Case does not matter (RFC 4343).

/// The name of a listener in lower case; none for one that serves every name.
pub(super) fn of(written: Option<&str>) -> Option<String> {
    written.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase)
}

/// Whether some name is meant by both.
pub(super) fn meet(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (None, None) => one == other,
        (Some(below), None) => other.len() > below.len() && other.ends_with(below),
        (None, Some(below)) => one.len() > below.len() && one.ends_with(below),
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
    }
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
