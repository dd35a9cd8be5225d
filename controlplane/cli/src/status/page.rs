//! The report as a page for people: the verdict first, then what runs, what is served, what was lost.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::{
    ByThread, ControlPlane, Counted, Counters, DataPlane, Health, Item, Labels, Listener,
};
use super::report::{Process, Refused, Report, State, Worker};
use crate::layout::{Cell, Grid, Paint, Span, Style};

/// Columns of a port that count frames it lost.
const PORT_LOSSES: [&str; 4] = ["missed", "receive_errors", "transmit_errors", "no_mbuf"];
/// Columns of a port that are laid out.
const PORT_LAID_OUT: [&str; 5] =
    ["link_up", "received_packets", "received_bytes", "sent_packets", "sent_bytes"];
/// Columns of listeners and backends that are laid out, as the one and the other call them.
const TRAFFIC: [[&str; 2]; 6] = [
    ["flows", "flows"],
    ["flows_new", "flows_new"],
    ["packets_in", "packets_to"],
    ["bytes_in", "bytes_to"],
    ["packets_out", "packets_from"],
    ["bytes_out", "bytes_from"],
];
/// Columns of workers that are laid out.
const WORKER_LAID_OUT: [&str; 7] =
    ["received", "transmitted", "handed_over", "handed_in", "punted", "dropped", "flows"];

/// The whole page.
pub(super) fn page(report: &Report, style: Style) -> String {
    let mut page = verdict(report, style);
    let sections = [
        ("", processes(report).render(style)),
        ("", generations(report).render(style)),
        ("Refused or doubtful", refused(&report.controlplane)),
        ("Health checks", health(&report.controlplane)),
    ];
    let counted = counted(&report.counted, style);
    for (title, text) in sections.into_iter().chain(counted) {
        if text.is_empty() {
            continue;
        }
        page.push('\n');
        if !title.is_empty() {
            let _ = writeln!(page, "{title}"); // writing to a String cannot fail
        }
        page.push_str(&text);
    }
    page
}

fn verdict(report: &Report, style: Style) -> String {
    if report.ok {
        let boxes = report.controlplane.says.as_ref().is_some_and(|says| says.boxes.is_some());
        let agree = match boxes {
            false => "both programs run and serve the same generation",
            true => "boxes are served",
        };
        let refused = report.controlplane.says.as_ref().map_or(0, |says| says.errors);
        let (text, paint) = match refused {
            0 => (format!("ok: {agree}"), Paint::Good),
            1 => (format!("ok, but something is refused: {agree}"), Paint::Bad),
            many => (format!("ok, but {many} things are refused: {agree}"), Paint::Bad),
        };
        return style.paint(&text, paint) + "\n";
    }
    let problems = report.problems.iter().map(|problem| format!("! {problem}"));
    let mut text: String =
        problems.map(|problem| style.paint(&problem, Paint::Bad) + "\n").collect();
    let state = report.dataplane.process.state;
    if matches!(state, State::Down | State::Silent) {
        text.push_str("  Ports, workers, listeners and drops below are as they were then.\n");
    }
    text
}

fn processes(report: &Report) -> Grid {
    let mut grid = Grid::new(&["PROCESS", "STATE", "PID", "VERSION", "UPTIME", "NOTE"]);
    let (dataplane, control) = (&report.dataplane, &report.controlplane);
    if control.says.as_ref().is_none_or(|says| says.boxes.is_none()) {
        grid.row(process_row("data plane", &dataplane.process, beat(dataplane)));
    }
    grid.row(process_row("control process", &control.process, errand(control)));
    if let Some(l7) = &report.l7 {
        let (open, refused) = (l7.says.open_connections, l7.says.errors.len());
        let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
        let note = format!("generation {}, {open} connections{refused}", l7.says.generation);
        grid.row(process_row("L7 tier", &l7.process, note));
    }
    grid
}

fn process_row(name: &str, process: &Process, note: String) -> [Cell; 6] {
    let (state, paint) = match process.state {
        State::Running => ("running", Paint::Good),
        State::Silent => ("silent", Paint::Bad),
        State::Down => ("down", Paint::Bad),
        State::NeverRan => ("never ran", Paint::Bad),
        State::Unreadable => ("unknown", Paint::Bad),
    };
    let uptime =
        process.uptime_seconds.map(|seconds| Span(Duration::from_secs(seconds)).to_string());
    [
        name.into(),
        Cell::painted(state, paint),
        process.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
        process.version.clone().unwrap_or_default().into(),
        uptime.unwrap_or_default().into(),
        note.into(),
    ]
}

fn beat(dataplane: &DataPlane) -> String {
    let age = dataplane.heartbeat_age_ms.map(|age| Span(Duration::from_millis(age)));
    age.map_or_else(String::new, |age| format!("last beat {age} ago"))
}

fn errand(control: &ControlPlane) -> String {
    let Some(says) = &control.says else { return String::new() };
    let connected = match (control.process.state, says.connected) {
        (State::Running, true) => "connected, ",
        (State::Running, false) => "not connected, ",
        _ => "", // what it said before it died
    };
    if let Some(boxes) = &says.boxes {
        let pinned = boxes.pinned.as_ref().map(|it| format!(", version {it} is pinned"));
        return format!(
            "{} boxes: {} connected, {} in sync{}; {} objects",
            boxes.boxes,
            boxes.connected,
            boxes.in_sync,
            pinned.unwrap_or_default(),
            says.objects
        );
    }
    if let Some(agent) = &says.agent {
        let who =
            if agent.connected { agent.controller.as_str() } else { "a controller that is away" };
        return format!(
            "{connected}{} objects: version {} of {who}, as Box {}",
            says.objects, agent.version, agent.name
        );
    }
    let source = match &says.api_server {
        Some(server) if server.connected => server.url.clone(),
        Some(server) => format!("{}, which is out of reach", server.url),
        None => says.config_dir.clone(),
    };
    format!("{connected}{} objects from {source}", says.objects)
}

fn generations(report: &Report) -> Grid {
    let mut grid = Grid::new(&["GENERATION", ">NUMBER", "DIGEST", "NOTE"]);
    if let Some(says) = &report.controlplane.says {
        let told = |kind: &str| says.publishes.get(kind).copied().unwrap_or(0);
        let note = format!(
            "told by snapshot {}, by delta {}, nothing to tell {}",
            told("snapshot"),
            told("delta"),
            told("nothing")
        );
        grid.row([
            "published".into(),
            says.generation.to_string().into(),
            says.digest.clone().into(),
            note.into(),
        ]);
        grid.row(["acknowledged".into(), says.acknowledged.to_string().into()]);
    }
    if let Some(serves) = &report.dataplane.serves {
        let ready = if serves.ready { "by every worker" } else { "not by every worker yet" };
        let note = format!("{ready}, epoch {}", serves.epoch);
        grid.row([
            "served".into(),
            serves.generation.to_string().into(),
            serves.digest.clone().into(),
            note.into(),
        ]);
    }
    grid
}

/// A line each, as compilers write it.
fn refused(control: &ControlPlane) -> String {
    let Some(says) = &control.says else { return String::new() };
    let mut text: String =
        says.refused.iter().map(|refused| format!("  {}\n", refused_line(refused))).collect();
    let more = (says.errors + says.warnings).saturating_sub(says.refused.len() as u64);
    if more > 0 {
        let next = match &says.api_server {
            Some(_) => "see the log of penstock-controlplane".to_owned(),
            None => format!("penstock check {}", says.config_dir),
        };
        let _ = writeln!(text, "  and {more} more: {next}"); // writing to a String cannot fail
    }
    text
}

/// What came of health checks: nothing if nobody is asked.
fn health(control: &ControlPlane) -> String {
    let Some(says) = control.says.as_ref().filter(|says| !says.health.is_idle()) else {
        return String::new();
    };
    let Health { backends, unhealthy, fail_open, down, answers, bad_answers, changes } =
        &says.health;
    let mut text = format!(
        "  {backends} backends are asked, {unhealthy} are not well; {answers} answers, {bad_answers} bad, {changes} \
         changes\n"
    );
    for line in down {
        let _ = writeln!(text, "  not well: {line}"); // writing to a String cannot fail
    }
    let more = unhealthy.saturating_sub(down.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more"); // nor here
    }
    for line in fail_open {
        let _ = writeln!(text, "  all serve, since too many are not well: {line}"); // nor here
    }
    text
}

fn refused_line(refused: &Refused) -> String {
    let mut place = refused.file.clone().unwrap_or_default();
    for number in [refused.line, refused.column].into_iter().flatten() {
        let _ = write!(place, ":{number}"); // writing to a String cannot fail
    }
    let place = Some(place).filter(|place| !place.is_empty());
    let parts =
        [place, refused.severity.clone(), refused.object.clone(), Some(refused.reason.clone())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// The sections that come from the statistics segment; without one there are none.
fn counted(counted: &Counted, style: Style) -> Vec<(&'static str, String)> {
    if counted.ports.is_empty() && counted.workers.is_empty() && counted.listeners.is_empty() {
        return Vec::new();
    }
    let or_none = |grid: Grid, none: &str| {
        if grid.is_empty() { format!("{none}\n") } else { grid.render(style) }
    };
    vec![
        ("", or_none(ports(&counted.ports, style), "No ports.")),
        ("", or_none(workers(&counted.workers, style), "No workers.")),
        ("", or_none(listeners(counted, style), "No listeners: nothing is served.")),
        ("", or_none(drops(&counted.drops, style), "No packet was dropped.")),
        ("", or_none(punts(&counted.punts, style), "No packet went to the kernel.")),
        ("", if style.verbose { other_tables(counted, style) } else { String::new() }),
    ]
}

fn ports(ports: &[Item], style: Style) -> Grid {
    let mut grid = Grid::new(&[
        "PORT",
        "LINK",
        "MAC",
        "DEVICE",
        "COMPANION",
        "RECEIVE",
        ">PACKETS IN",
        ">BYTES IN",
        ">PACKETS OUT",
        ">BYTES OUT",
        ">LOST",
        "NOTE",
    ]);
    for port in ports {
        let link = port.counters.get("link_up").map(link).unwrap_or_default();
        let lost = PORT_LOSSES
            .iter()
            .filter_map(|name| port.counters.get(name))
            .fold(0, u64::wrapping_add);
        let label = |key| Cell::from(style.name(port.labels.get(key)));
        let traffic = PORT_LAID_OUT[1..].iter().map(|name| number(&port.counters, name, style));
        let head = ["mac", "device", "companion"].map(label);
        let head = [label("name"), link].into_iter().chain(head).chain([receive(&port.labels)]);
        let tail = [style.count(lost).into(), note(&port.counters, &PORT_LAID_OUT, style).into()];
        grid.row(head.chain(traffic).chain(tail));
    }
    grid
}

/// How the port's packets come to the workers.
fn receive(labels: &Labels) -> Cell {
    match labels.get("receive") {
        lies @ "rss disproved" => Cell::painted(lies, Paint::Bad),
        manner => manner.into(),
    }
}

fn link(up: u64) -> Cell {
    match up {
        0 => Cell::painted("down", Paint::Bad),
        1 => Cell::painted("up", Paint::Good),
        _ => "unknown".into(), // the driver cannot say
    }
}

fn workers(workers: &[Worker], style: Style) -> Grid {
    let mut grid = Grid::new(&[
        "WORKER",
        ">BUSY",
        ">CYCLES/PACKET",
        ">RECEIVED",
        ">SENT",
        ">HANDED OVER",
        ">TAKEN OVER",
        ">PUNTED",
        ">DROPPED",
        ">FLOWS",
        "NOTE",
    ]);
    for worker in workers {
        let busy =
            worker.busy_ratio.map(|ratio| format!("{:.1} %", ratio * 100.0)).unwrap_or_default();
        let cycles =
            worker.cycles_per_packet.map(|cycles| format!("{cycles:.0}")).unwrap_or_default();
        let head = [worker.worker.to_string().into(), busy.into(), cycles.into()];
        let counts = WORKER_LAID_OUT.iter().map(|name| number(&worker.counters, name, style));
        let rest = if style.verbose {
            note(&worker.counters, &WORKER_LAID_OUT, style)
        } else {
            String::new()
        };
        grid.row(head.into_iter().chain(counts).chain([rest.into()]));
    }
    grid
}

/// Each listener, and under it its backends.
fn listeners(counted: &Counted, style: Style) -> Grid {
    let mut grid = Grid::new(&[
        "LISTENER",
        "ADDRESS",
        "MODE",
        ">FLOWS",
        ">NEW",
        ">PACKETS IN",
        ">BYTES IN",
        ">PACKETS OUT",
        ">BYTES OUT",
        "NOTE",
    ]);
    let mut row = |name: String, address: &str, mode: Cell, said: &str, counters: &Counters| {
        let known = TRAFFIC.as_flattened();
        let head = [name.into(), address.into(), mode];
        let traffic = TRAFFIC.iter().map(|names| {
            let name = names.iter().find(|name| counters.get(name).is_some());
            name.map_or_else(Cell::default, |name| number(counters, name, style))
        });
        let counted = note(counters, known, style);
        let note = [said.to_owned(), counted].into_iter().filter(|part| !part.is_empty());
        let note = note.collect::<Vec<_>>().join(", ");
        grid.row(head.into_iter().chain(traffic).chain([note.into()]));
    };
    for Listener { item, backends } in &counted.listeners {
        let (labels, counters) = (&item.labels, &item.counters);
        let (name, address) = (style.name(labels.get("name")), listener_address(labels));
        let said = [maglev(labels, style), policies(labels)];
        let said = said.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        row(name, &address, mode(labels), &said, counters);
        for backend in backends {
            row(
                "  backend".into(),
                backend.labels.get("address"),
                share(&backend.labels),
                "",
                &backend.counters,
            );
        }
    }
    for backend in &counted.other_backends {
        let name = format!("(of {})", style.name(backend.labels.get("group")));
        row(name, backend.labels.get("address"), share(&backend.labels), "", &backend.counters);
    }
    grid
}

/// `192.0.2.10:80/tcp`, `[2001:db8::1]:80/tcp`.
fn listener_address(labels: &Labels) -> String {
    let (vip, ports, protocol) = (labels.get("vip"), labels.get("ports"), labels.get("protocol"));
    let vip = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
    format!("{vip}:{ports}/{protocol}").to_lowercase()
}

fn mode(labels: &Labels) -> Cell {
    // Configured no longer, or otherwise: what is left are flows of before.
    if labels.get("departed") == "true" { "departed".into() } else { labels.get("mode").into() }
}

/// By which table it picks backends, for a comparison between boxes: `maglev 0123456789abcdef of 65537 slots`.
fn maglev(labels: &Labels, style: Style) -> String {
    let (digest, slots) = (labels.get("maglev_digest"), labels.get("maglev_slots"));
    if style.verbose && !digest.is_empty() {
        format!("maglev {digest} of {slots} slots")
    } else {
        String::new()
    }
}

/// What a listener does otherwise than others where it cannot do what is asked: `on-removal reset`.
fn policies(labels: &Labels) -> String {
    let usual = [
        ("on_removal", "keep"),
        ("on_exhaustion", "reset"),
        ("on_unknown", "drop"),
        ("mss_clamp", "auto"),
        ("timeouts", "usual"),
        ("source_ranges", "all"),
    ];
    let said = usual.into_iter().map(|(key, usual)| (key, usual, labels.get(key)));
    let other = said.filter(|(_, usual, said)| !said.is_empty() && said != usual);
    let parts = other.map(|(key, _, said)| format!("{} {said}", key.replace('_', "-")));
    parts.collect::<Vec<_>>().join(", ")
}

fn share(labels: &Labels) -> Cell {
    if labels.get("draining") == "true" {
        "draining".into()
    } else {
        format!("weight {}", labels.get("weight")).into()
    }
}

fn drops(drops: &[ByThread], style: Style) -> Grid {
    let mut grid = Grid::new(&["DROPPED", ">PACKETS", "WHAT IT MEANS"]);
    for ByThread { item, .. } in drops {
        let packets = item.counters.get("packets").unwrap_or(0);
        if packets > 0 || style.verbose {
            let label = |key| Cell::from(item.labels.get(key));
            grid.row([label("reason"), style.count(packets).into(), label("help")]);
        }
    }
    grid
}

fn punts(punts: &[Item], style: Style) -> Grid {
    let mut grid = Grid::new(&["TO THE KERNEL", ">PACKETS", ">BYTES"]);
    for punt in punts {
        if punt.counters.get("packets") != Some(0) || style.verbose {
            let number = |name| number(&punt.counters, name, style);
            grid.row([punt.labels.get("class").into(), number("packets"), number("bytes")]);
        }
    }
    grid
}

/// Tables that this program does not know: labels, then numbers.
fn other_tables(counted: &Counted, style: Style) -> String {
    let mut text = String::new();
    for (name, items) in &counted.other_tables {
        for item in items {
            let labels = item.labels.0.iter().map(|(key, value)| format!("{key}={value}"));
            let numbers =
                item.counters.0.iter().map(|(key, value)| format!("{key} {}", style.count(*value)));
            let parts: Vec<String> = labels.chain(numbers).collect();
            let _ = writeln!(text, "{name}  {}", parts.join(", ")); // writing to a String cannot fail
        }
    }
    text
}

fn number(counters: &Counters, name: &str, style: Style) -> Cell {
    counters.get(name).map(|value| style.count(value)).unwrap_or_default().into()
}

/// The columns that have no place of their own, where they are not zero: `refused 3, flows_reset 1`.
fn note(counters: &Counters, laid_out: &[&str], style: Style) -> String {
    let rest =
        counters.0.iter().filter(|(name, value)| *value != 0 && !laid_out.contains(&name.as_str()));
    let parts: Vec<String> =
        rest.map(|(name, value)| format!("{name} {}", style.count(*value))).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_nobody_knows_of_is_neither_up_nor_down() {
        let bad = Cell::painted("down", Paint::Bad);
        let good = Cell::painted("up", Paint::Good);
        assert_eq!([0, 1, 2].map(link), [bad, good, "unknown".into()]);
    }
}
