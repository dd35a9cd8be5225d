//! What a statistics segment promises.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;

mod damage;

const COLUMNS: &[Column] = &[
    Column::counter("packets", "packets"),
    Column::counter("bytes", "bytes"),
    Column::gauge("flows", "flows"),
];
const PER_WORKER: TableSpec =
    TableSpec { name: "listeners", columns: COLUMNS, rows: 70, per_worker: true };
const MAIN_ONLY: TableSpec = TableSpec {
    name: "punts",
    columns: &[Column::counter("packets", "")],
    rows: 3,
    per_worker: false,
};
const ONE_ROW: TableSpec =
    TableSpec { name: "workers", columns: COLUMNS, rows: 1, per_worker: true };
const TABLES: &[TableSpec] = &[PER_WORKER, MAIN_ONLY, ONE_ROW];

struct Segment {
    _directory: TempDir,
    path: PathBuf,
    writer: StatsWriter,
}

fn segment() -> Segment {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dataplane.stats");
    let writer = StatsWriter::create(&path, &this_process(), 2, TABLES).unwrap();
    Segment { _directory: directory, path, writer }
}

fn this_process() -> ProcessInfo {
    ProcessInfo {
        pid: std::process::id(),
        version: "1.2.3".into(),
        started: UNIX_EPOCH + Duration::from_secs(1_000),
    }
}

fn open(path: &Path) -> StatsReader {
    StatsReader::open(path).unwrap()
}

fn rows(reader: &StatsReader, table: &str) -> Vec<Row> {
    reader.rows(reader.table(table).unwrap())
}

/// As a worker counts: one writer, so no read-modify-write.
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

#[test]
fn the_segment_explains_itself() {
    let segment = segment();
    let reader = open(&segment.path);
    assert_eq!(reader.process(), &this_process());
    assert_eq!(reader.workers(), 2);
    let seen: Vec<_> =
        reader.tables().iter().map(|table| (table.name.as_str(), table.rows)).collect();
    assert_eq!(seen, [("listeners", 70), ("punts", 3), ("workers", 1)]);
    let table = reader.table("listeners").unwrap();
    let seen: Vec<_> = table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.kind, column.unit.as_str()))
        .collect();
    let declared: Vec<_> =
        COLUMNS.iter().map(|column| (column.name, column.kind, column.unit)).collect();
    assert_eq!(seen, declared);
    assert_eq!((table.blocks, reader.table("punts").unwrap().blocks), (2, 1));
    assert_eq!((table.column("flows"), table.column("cats")), (Some(2), None));
    assert!(reader.table("cats").is_none());
}

/// What a reader sees after each thing a writer can do, on row 69 of `listeners`: the last of the
/// table, and the sixth of its second word of use. The steps follow each other on one segment.
#[test]
fn a_row_and_its_numbers_belong_together() {
    type Shown = Option<(&'static [(&'static str, &'static str)], [u64; 3])>;
    type Row = (&'static str, fn(&mut StatsWriter), Shown);
    const LABEL_A: &[(&str, &str)] = &[("name", "a")];
    const LABEL_B: &[(&str, &str)] = &[("name", "bb"), ("vip", "192.0.2.10")];
    let mut segment = segment();
    let reader = open(&segment.path);
    let steps: [Row; 7] = [
        ("a row without a label is not shown", |_| {}, None),
        (
            "numbers alone do not show it",
            |writer| writer.cells("listeners", 1)[69 * 3..].iter().for_each(|cell| add(cell, 5)),
            None,
        ),
        (
            "a label shows the row",
            |writer| writer.set_label("listeners", 69, LABEL_A).unwrap(),
            Some((LABEL_A, [5, 5, 5])),
        ),
        (
            "workers add up",
            |writer| add(&writer.cells("listeners", 0)[69 * 3 + 1], 7),
            Some((LABEL_A, [5, 12, 5])),
        ),
        (
            "another label replaces it whole",
            |writer| writer.set_label("listeners", 69, LABEL_B).unwrap(),
            Some((LABEL_B, [5, 12, 5])),
        ),
        (
            "without its label it is gone",
            |writer| writer.clear_label("listeners", 69).unwrap(),
            None,
        ),
        (
            "zeroed, it can be another's",
            |writer| {
                writer.zero_row("listeners", 69).unwrap();
                writer.set_label("listeners", 69, LABEL_A).unwrap();
            },
            Some((LABEL_A, [0, 0, 0])),
        ),
    ];
    for (promise, step, expected) in steps {
        step(&mut segment.writer);
        let seen = rows(&reader, "listeners");
        let seen: Vec<_> = seen
            .iter()
            .map(|row| {
                let labels: Vec<_> =
                    row.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                (row.index, labels, row.total.clone())
            })
            .collect();
        let expected: Vec<_> = expected
            .map(|(labels, total)| (69, labels.to_vec(), total.to_vec()))
            .into_iter()
            .collect();
        assert_eq!(seen, expected, "{promise}");
    }
}

#[test]
fn each_worker_has_its_own_block_on_its_own_pages() {
    let segment = segment();
    let blocks: Vec<Cells> =
        (0..2).map(|worker| segment.writer.cells("listeners", worker)).collect();
    assert_eq!(blocks[0].len(), 70 * 3);
    let pages: Vec<_> = blocks.iter().map(|cells| std::ptr::from_ref(&cells[0]).addr()).collect();
    assert!(pages.iter().all(|address| address % 4096 == 0));
    assert!(pages[1] - pages[0] >= 4096);
    add(&blocks[0][0], 1);
    add(&blocks[1][0], 10);
    let mut writer = segment.writer;
    writer.set_label("listeners", 0, &[]).unwrap();
    drop(writer); // a worker's cells outlive the writer
    add(&blocks[1][0], 10);
    let row = &rows(&open(&segment.path), "listeners")[0];
    assert_eq!((row.total[0], row.blocks[0][0], row.blocks[1][0]), (21, 1, 20));
}

#[test]
fn the_row_of_a_table_of_one_row_needs_no_label() {
    let segment = segment();
    add(&segment.writer.cells("workers", 1)[2], 4);
    let seen = rows(&open(&segment.path), "workers");
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].labels.len(), seen[0].blocks[1][2]), (0, 4));
}

#[test]
fn the_generation_is_read_whole() {
    let mut segment = segment();
    let reader = open(&segment.path);
    assert_eq!(reader.generation(), Some(Generation::default()));
    let digest = u128::MAX - 5;
    segment.writer.set_generation(7, digest, 3, true);
    assert_eq!(
        reader.generation(),
        Some(Generation { generation: 7, digest, epoch: 3, ready: true })
    );
}

#[test]
fn refusals_of_the_writer_say_the_limit() {
    let mut segment = segment();
    let long = "x".repeat(MAX_LABEL_BYTES);
    let very_long_key = "k".repeat(256);
    let nameless = TableSpec { name: "", ..MAIN_ONLY };
    let rowless = TableSpec { rows: 0, ..MAIN_ONLY };
    let spec = |workers, tables: &[TableSpec]| {
        StatsWriter::create(&segment.path, &this_process(), workers, tables)
            .err()
            .unwrap()
            .to_string()
    };
    let specs = [
        (spec(0, TABLES), "0 workers, allowed are 1 to 256"),
        (spec(1, &[]), "0 tables, allowed are 1 to 64"),
        (spec(1, &[nameless]), "table name \"\" is not 1 to 56 bytes of printable ASCII"),
        (spec(1, &[rowless]), "0 rows of table punts, allowed are 1 to 1048576"),
        (spec(1, &[MAIN_ONLY, MAIN_ONLY]), "two tables are called punts"),
    ];
    for (message, expected) in specs {
        assert_eq!(message, format!("statistics segment: {expected}"));
    }
    let mut label = |table, row, key, value| {
        segment.writer.set_label(table, row, &[(key, value)]).unwrap_err().to_string()
    };
    let labels = [
        (label("punts", 3, "k", "v"), "statistics segment: no row 3 in a table punts"),
        (label("cats", 0, "k", "v"), "statistics segment: no row 0 in a table cats"),
        (
            label("punts", 0, "k", &long),
            "statistics table punts, row 0: a label of 1028 bytes, 1024 fit",
        ),
        (
            label("punts", 0, &very_long_key, "v"),
            "statistics table punts, row 0: a key of 256 bytes, 255 fit",
        ),
    ];
    for (message, expected) in labels {
        assert_eq!(message, expected);
    }
    let longest = &long[..MAX_LABEL_BYTES - 4];
    segment.writer.set_label("punts", 2, &[("k", longest)]).unwrap();
    assert_eq!(rows(&open(&segment.path), "punts")[0].label("k"), Some(longest));
}

#[test]
fn a_writer_that_cannot_make_the_file_says_where() {
    let error =
        StatsWriter::create(Path::new("/nonexistent/d/x"), &this_process(), 1, TABLES).err();
    let message = error.unwrap().to_string();
    assert_eq!(
        message,
        "/nonexistent/d/x: cannot create it: No such file or directory (os error 2)"
    );
}

#[test]
fn a_new_segment_leaves_the_old_one_readable() {
    let mut segment = segment();
    segment.writer.set_label("punts", 0, &[("class", "control")]).unwrap();
    add(&segment.writer.cells("punts", 0)[0], 9);
    let old = open(&segment.path);
    let second = ProcessInfo { version: "2.0.0".into(), ..this_process() };
    let _writer = StatsWriter::create(&segment.path, &second, 1, &[MAIN_ONLY]).unwrap();
    let new = open(&segment.path);
    assert_eq!((old.process().version.as_str(), old.workers()), ("1.2.3", 2));
    assert_eq!(rows(&old, "punts")[0].total, [9]);
    assert_eq!((new.process().version.as_str(), new.workers()), ("2.0.0", 1));
    assert_eq!(rows(&new, "punts"), []);
    let left: Vec<_> = fs::read_dir(segment.path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "the temporary name is gone");
}

#[test]
fn anyone_may_read_and_only_the_owner_may_write() {
    let segment = segment();
    assert_eq!(fs::metadata(&segment.path).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_large_segment_costs_what_is_used_of_it() {
    const EIGHT: &[Column] = &[Column::counter("c", ""); 8];
    let listeners = TableSpec { columns: EIGHT, rows: 32_768, ..PER_WORKER };
    let backends = TableSpec { name: "backends", columns: EIGHT, rows: 262_144, per_worker: true };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dataplane.stats");
    let writer = StatsWriter::create(&path, &this_process(), 2, &[listeners, backends]);
    let mut writer = writer.unwrap();
    let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
    let (length, used) = (fs::metadata(&path).unwrap().len(), blocks());
    assert!(length < 345 << 20, "{length} bytes long");
    assert!(used < 18 << 16, "{used} bytes used"); // 1 MiB of cells, header, directory, bits of use
    for row in 0..100 {
        writer.set_label("listeners", row, &[("name", "default/web/http")]).unwrap();
    }
    let more = blocks() - used;
    assert!(more < 145 * 1024, "100 labels took {more} bytes"); // 128 of 1088

    let used = blocks();
    writer.reserve("backends", 4095).unwrap();
    assert_eq!(blocks(), used, "they were there from the start");
    writer.reserve("backends", 10_000).unwrap();
    let more = blocks() - used;
    assert!((1 << 20..18 << 16).contains(&more), "8192 rows of two workers took {more} bytes");
    let used = blocks();
    for worker in 0..2 {
        writer.cells("backends", worker)[..12_288 * 8].iter().for_each(|cell| add(cell, 1));
    }
    assert_eq!(blocks(), used, "and nothing is missing when they are written");
    let error = writer.reserve("backends", 262_144).unwrap_err();
    assert!(matches!(error, StatsError::NoSuchRow { .. }), "{error}");
}

#[test]
fn life_is_told_by_process_and_beat() {
    let gone = std::process::Command::new("true").spawn().and_then(|mut child| {
        let pid = child.id();
        child.wait().map(|_| pid)
    });
    let beat = UNIX_EPOCH + Duration::from_secs(5_000);
    let after = |seconds| beat + Duration::from_secs(seconds);
    let rows = [
        ("it beats", std::process::id(), after(2), Life::Beating),
        (
            "its clock was set back",
            std::process::id(),
            beat - Duration::from_secs(60),
            Life::Beating,
        ),
        ("it is there and silent", std::process::id(), after(4), Life::Silent { since: beat }),
        ("it died", gone.unwrap(), after(1), Life::Gone { since: beat }),
        ("no process has id 0", 0, after(1), Life::Gone { since: beat }),
        ("nor this one", u32::MAX, after(1), Life::Gone { since: beat }),
    ];
    for (promise, pid, now, expected) in rows {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dataplane.stats");
        let process = ProcessInfo { pid, ..this_process() };
        let writer = StatsWriter::create(&path, &process, 1, TABLES).unwrap();
        assert_eq!(
            open(&path).heartbeat(),
            process.started,
            "{promise}: its start is its first beat"
        );
        writer.beat(beat);
        assert_eq!(open(&path).life(now), expected, "{promise}");
    }
}

/// A writer renames a row, counts in it and says generations as fast as it can, while a reader looks.
#[test]
fn a_reader_never_sees_a_torn_label() {
    let mut segment = segment();
    let reader = open(&segment.path);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..=20_000).for_each(|turn| change_everything(&mut segment.writer, turn));
            done.store(true, Ordering::Release);
        });
        loop {
            let last_look = done.load(Ordering::Acquire);
            let (row, generation) = (rows(&reader, "listeners").pop(), reader.generation());
            assert!(row.is_some() || !last_look, "the last label is there");
            if let Some(row) = &row {
                assert_whole(row);
                assert_eq!(row.total[0], number_of(row), "under another's number");
            }
            rows(&reader, "workers")
                .iter()
                .filter(|row| !row.labels.is_empty())
                .for_each(assert_whole);
            if let Some(found) = generation {
                let one = u128::from(found.generation);
                assert_eq!((found.digest, found.epoch), (one << 64 | one, found.generation));
            }
            if last_look {
                break;
            }
        }
    });
}

/// The row's label is as long as its letter says, and so is its number.
fn change_everything(writer: &mut StatsWriter, turn: u64) {
    let number = turn % 26;
    let letter = char::from(b'a' + number as u8).to_string();
    let name = letter.repeat(number as usize * 30 + 1);
    writer.clear_label("listeners", 5).unwrap();
    writer.cells("listeners", 0)[5 * COLUMNS.len()].store(number, Ordering::Relaxed);
    writer.set_label("listeners", 5, &[("name", &name)]).unwrap();
    writer.set_label("workers", 0, &[("name", &name)]).unwrap(); // over the label before
    writer.set_generation(turn, u128::from(turn) << 64 | u128::from(turn), turn, true);
}

fn assert_whole(row: &Row) {
    let name = row.label("name").unwrap();
    assert!(name.bytes().all(|byte| byte == name.as_bytes()[0]), "torn: {name}");
    assert_eq!(name.len() as u64, number_of(row) * 30 + 1, "a label of another's length");
}

fn number_of(row: &Row) -> u64 {
    u64::from(row.label("name").unwrap().as_bytes()[0] - b'a')
}
