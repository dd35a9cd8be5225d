//! A network namespace for a test, and what tests do in one.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags};

use crate::kernel::{KernelError, MacAddr, Mirror, Tap};

/// The companion of every test, of port 0.
pub(super) const COMPANION: &str = "pst0";
pub(super) const MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
/// Longer than anything that is waited for; what does not happen fails then.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a namespace of its own, with `lo` up; or says that it cannot.
pub(super) fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    let has_ip = Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !rustix::process::geteuid().is_root() || !has_ip {
        // Not by `eprintln!`: the harness hides that of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: needs root and iproute2");
        return;
    }
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            #[expect(unsafe_code, reason = "unshare is unsafe for what other flags would share")]
            // SAFETY: NEWNET separates this thread's network namespace and nothing else: no
            // memory, no descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            ip("link set lo up");
            sysctl("net/ipv6/conf/default/addr_gen_mode", "1"); // they come in their own time
            test();
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip` with these words, in this thread's namespace.
pub(super) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// What `ip` prints.
pub(super) fn ip_says(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asks `ip` until what it prints is right.
pub(super) fn ip_will_say(words: &str, promise: &str, right: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !right(&ip_says(words)) {
        assert!(Instant::now() < deadline, "{promise}: ip {words} says {}", ip_says(words));
    }
}

/// Runs many `ip` commands in one process, which is fast.
pub(super) fn ip_batch(lines: impl Iterator<Item = String>) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let text: String = lines.map(|line| line + "\n").collect();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Sets a sysctl of this thread's namespace.
pub(super) fn sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{path}"), value).unwrap();
}

/// The companion, up, and nothing on it.
pub(super) fn companion() -> Tap {
    Tap::open(COMPANION, MAC, 1500, false).unwrap()
}

/// Opens a TAP that this test let go of a moment ago. Another test's thread may start a process in
/// that moment, and that holds a copy of every descriptor until it has become another program.
pub(super) fn reopen(name: &str, mac: MacAddr, mtu_bytes: u32, persist: bool) -> Tap {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Tap::open(name, mac, mtu_bytes, persist) {
            Err(KernelError::Busy { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// A companion with addresses of both families, and a management interface beside it.
pub(super) fn box_with_management() -> Tap {
    let tap = companion();
    ip(&format!("address add 10.10.0.2/24 dev {COMPANION}"));
    ip(&format!("address add 2001:db8::2/64 dev {COMPANION} nodad"));
    ip("link add mgmt0 type veth peer name mgmt1");
    ip("link set mgmt0 up");
    ip("link set mgmt1 up");
    ip("address add 192.168.7.2/24 dev mgmt0");
    tap
}

/// A mirror of the namespace.
pub(super) fn mirror() -> Mirror {
    Mirror::open(&[(0, COMPANION.to_owned())]).unwrap()
}

/// Steps until `seen`, and fails if it does not come.
pub(super) fn until(mirror: &mut Mirror, promise: &str, mut seen: impl FnMut(&Mirror) -> bool) {
    until_is(mirror, promise, |mirror| seen(mirror), &true);
}

/// Steps until `show` shows what is expected.
pub(super) fn until_is<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
    mirror: &mut Mirror,
    promise: &str,
    mut show: impl FnMut(&Mirror) -> T,
    expected: &U,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        mirror.step().unwrap();
        let shown = show(mirror);
        if mirror.is_current() && shown == *expected {
            return;
        }
        let late = Instant::now() > deadline;
        assert!(!late, "{promise}: still\n{shown:#?}\nand not\n{expected:#?}");
        wait_readable(mirror, Duration::from_millis(5));
    }
}

/// Takes frames from the TAP until `wanted` finds what it looks for.
pub(super) fn frame<T>(tap: &Tap, promise: &str, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; tap.frame_bytes()];
    loop {
        match tap.read_frame(&mut buffer).unwrap() {
            Some(len) => {
                if let Some(found) = wanted(&buffer[..len]) {
                    return found;
                }
            }
            None => {
                assert!(Instant::now() < deadline, "{promise}: no such frame came");
                wait_readable(tap, Duration::from_millis(20));
            }
        }
    }
}

/// Throws away what waits on the TAP.
pub(super) fn discard_frames(tap: &Tap) {
    let mut buffer = vec![0; tap.frame_bytes()];
    while tap.read_frame(&mut buffer).unwrap().is_some() {}
}

fn wait_readable(what: &impl AsFd, time: Duration) {
    let mut fds = [PollFd::new(what, PollFlags::IN)];
    let _ = poll(&mut fds, Some(&Timespec::try_from(time).unwrap()));
}

/// Makes this thread an ordinary user with these capabilities and no others, as `setpriv
/// --reuid --clear-groups --inh-caps --ambient-caps` does for a process.
pub(super) fn become_ordinary_user(capabilities: CapabilitySet) {
    let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_keep_capabilities(true).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
}
