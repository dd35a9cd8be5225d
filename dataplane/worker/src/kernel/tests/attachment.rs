//! What becomes of a companion whose interface is deleted.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frames::{REPLY, REQUEST, arp, arp_frame};
use super::namespace::{COMPANION, MAC, PATIENCE, in_namespace, ip, ip_says, mirror, until};
use crate::kernel::attachment::{Attachment, Written};
use crate::kernel::{Ifindex, MacAddr};

const HOST: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x77]);
const MS: Duration = Duration::from_millis(1);

/// What the kernel says to a question for the address it has on the companion.
fn answers(held: &mut Attachment, now: Duration) -> bool {
    let (host, own) = ([10, 10, 0, 9].into(), [10, 10, 0, 2].into());
    let question = arp_frame(REQUEST, (HOST, host), (MacAddr([0xff; 6]), own));
    assert_eq!(held.write_frame(&question, now), Written::Taken);
    let (deadline, mut buffer) = (std::time::Instant::now() + PATIENCE, [0; 2000]);
    while std::time::Instant::now() < deadline {
        if let Some(len) = held.read_frame(&mut buffer, now)
            && arp(&buffer[..len]).is_some_and(|arp| arp.operation == REPLY)
        {
            return true;
        }
    }
    false
}

/// What a poll says of one that is held.
fn polled(held: &Attachment) -> PollFlags {
    let fd = held.fd().expect("it is held");
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents()
}

#[test]
fn a_deleted_companion_is_let_go_of_and_opened_anew() {
    in_namespace("a_deleted_companion_is_let_go_of_and_opened_anew", || {
        let mut held = Attachment::open(COMPANION, MAC, 1500).unwrap();
        let mut mirror = mirror();
        let old = held.index();
        ip("address add 10.10.0.2/24 dev pst0");
        assert!(answers(&mut held, MS), "before");

        ip("link delete pst0");
        let frame = [0; 60];
        assert_eq!(polled(&held), PollFlags::ERR, "it would wake whoever polls it for ever");
        assert_eq!(held.read_frame(&mut [0; 2000], MS), None, "a read finds it gone");
        assert!(held.fd().is_none(), "and nobody polls it any more");
        assert_eq!(held.write_frame(&frame, MS), Written::Lost, "so what it misses is counted");
        until(&mut mirror, "the mirror sees it go", |mirror| mirror.companion(0).is_none());
        held.keep(1000 * MS);
        assert_eq!(held.index(), None, "not before a second has passed");

        ip("link add pst0 type bridge");
        held.keep(1001 * MS);
        assert_eq!(held.index(), None, "something else stands in its place");
        ip("link delete pst0");
        held.keep(2000 * MS);
        assert_eq!(held.index(), None, "the next try is a second later");
        held.keep(2001 * MS);
        let new: Option<Ifindex> = held.index();
        assert!(new.is_some() && new != old, "{old:?}, then {new:?}");
        until(&mut mirror, "the mirror sees it come", |mirror| mirror.companion(0) == new);
        assert!(ip_says("-o link show dev pst0").contains("LOWER_UP"));
        ip("address add 10.10.0.2/24 dev pst0");
        assert!(answers(&mut held, 2001 * MS), "and after");

        ip("link delete pst0");
        assert_eq!(held.write_frame(&frame, 3000 * MS), Written::Lost, "so does a write");
        assert!(held.fd().is_none());
    });
}

#[test]
fn a_companion_switched_off_is_not_lost() {
    in_namespace("a_companion_switched_off_is_not_lost", || {
        let mut held = Attachment::open(COMPANION, MAC, 1500).unwrap();
        ip("link set pst0 down");
        assert_eq!(held.write_frame(&[0; 60], MS), Written::Refused);
        let mut buffer = [0; 2000];
        while held.read_frame(&mut buffer, MS).is_some() {}
        assert_eq!(polled(&held), PollFlags::empty(), "it is still there, and says nothing");
    });
}
