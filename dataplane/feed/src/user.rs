//! Who may feed is said by user: a number, or the name of a local one.

/// The number of a user who is given as one, or by a name of `/etc/passwd` (passwd(5)); `None` if there is no
/// such name. Name services are not asked: their answer could change with the network that we carry.
#[must_use]
pub fn user_id(text: &str) -> Option<u32> {
    let by_name = || named(&std::fs::read_to_string("/etc/passwd").ok()?, text);
    text.parse().ok().or_else(by_name)
}

fn named(passwd: &str, name: &str) -> Option<u32> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name_of_this_machine() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nhalf:x\nweb:x:33:33::/:/bin/false\n";
        for (name, expected) in [
            ("root", Some(0)),
            ("web", Some(33)),
            ("broken", None),
            ("half", None),
            ("we", None),
            ("", None),
        ] {
            assert_eq!(named(passwd, name), expected, "{name}");
        }
        assert_eq!((user_id("33"), user_id("root")), (Some(33), Some(0)));
        assert_eq!(user_id("nobody-of-that-name"), None);
    }
}
