//! A file that is not right: refused with the place, and never a panic.

use proptest::prelude::*;

use super::*;

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at * 8..][..8].copy_from_slice(&word.to_ne_bytes());
}

#[test]
fn another_process_of_the_same_id_is_not_the_writer() {
    let segment = segment();
    let mut bytes = fs::read(&segment.path).unwrap();
    put(&mut bytes, layout::AT_PID_STARTED, 1);
    fs::write(&segment.path, &bytes).unwrap();
    let reader = open(&segment.path);
    assert!(matches!(reader.life(reader.heartbeat()), Life::Gone { .. }));
}

/// The word `field` of the first table's entry in the directory.
fn of_table(field: usize) -> usize {
    layout::AT_DIRECTORY + field
}

/// What is said of a file that is not right, a row each: which word is changed to what.
#[test]
fn a_damaged_file_is_refused_with_the_place() {
    let segment = segment();
    let good = fs::read(&segment.path).unwrap();
    let path = segment.path.with_file_name("bad");
    let cases = [
        ("another program's file", layout::AT_MAGIC, 7, "not a Penstock statistics segment"),
        ("another layout", layout::AT_LAYOUT, 9, "layout 9, this program reads 1"),
        ("a length that is not the file's", layout::AT_FILE_WORDS, 1, "it says it has 1 words"),
        ("no workers", layout::AT_WORKERS, 0, "0 workers, allowed are 1 to 256"),
        ("too many tables", layout::AT_TABLES, 65, "65 tables, allowed are 1 to 64"),
        ("a wild process id", layout::AT_PID, u64::MAX, "process id 18446744073709551615"),
        ("a long version", layout::AT_PROGRAM_VERSION.at, 999, "the program's version: its length"),
        ("a long name", of_table(0), 57, "table 0: its name: its length is more than its place"),
        ("a name of other bytes", of_table(1), u64::MAX, "table 0: its name is not text"),
        (
            "a name of no ink",
            of_table(1),
            0x2020_2020_2020_2020,
            "is not 1 to 56 bytes of printable",
        ),
        ("no rows", of_table(layout::TABLE_ROWS), 0, "table 0: 0 rows, allowed are 1 to"),
        ("a row too many", of_table(layout::TABLE_ROWS), 1 << 21, "table 0: 2097152 rows, allowed"),
        (
            "no columns",
            of_table(layout::TABLE_COLUMNS),
            0,
            "table 0: 0 columns, allowed are 1 to 64",
        ),
        ("a third worker's block", of_table(layout::TABLE_BLOCKS), 3, "3 blocks of cells, allowed"),
        ("narrow blocks", of_table(layout::TABLE_BLOCK_WORDS), 5, "5 words in a block of cells"),
        ("columns in the header", of_table(layout::TABLE_COLUMNS_AT), 3, "columns: words 3 to 51"),
        ("bits beyond the end", of_table(layout::TABLE_USED_AT), 1 << 40, "rows in use: words"),
        (
            "labels beyond the end",
            of_table(layout::TABLE_LABELS_AT),
            u64::MAX,
            "table 0: labels: words",
        ),
        (
            "cells beyond the end",
            of_table(layout::TABLE_CELLS_AT),
            1 << 60,
            "table 0: cells: words",
        ),
    ];
    for (promise, at, word, expected) in cases {
        let mut bytes = good.clone();
        put(&mut bytes, at, word);
        fs::write(&path, &bytes).unwrap();
        let message = StatsReader::open(&path).err().map(|error| error.to_string());
        assert!(
            message.as_ref().is_some_and(|said| said.contains(expected)),
            "{promise}: {message:?}"
        );
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let segment = segment();
    let good = fs::read(&segment.path).unwrap();
    let path = segment.path.with_file_name("bad");
    for length in [0, 1, 8, 4095, 4096, 4104, good.len() / 2, good.len() - 4096, good.len() - 8] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(StatsReader::open(&path).is_err(), "{length} bytes of {}", good.len());
    }
    assert!(StatsReader::open(segment.path.parent().unwrap()).is_err(), "a directory");
    let missing = StatsReader::open(&segment.path.with_file_name("none")).err().unwrap();
    assert!(missing.is_missing());
}

#[test]
fn a_writer_that_died_inside_a_change_hides_that_row_only() {
    let mut segment = segment();
    segment.writer.set_label("punts", 0, &[("class", "control")]).unwrap();
    segment.writer.set_label("punts", 1, &[("class", "other")]).unwrap();
    let mut bytes = fs::read(&segment.path).unwrap();
    let reader = open(&segment.path);
    let place = layout::plan(2, TABLES).unwrap().places[1];
    put(&mut bytes, place.label_of(0) + layout::LABEL_SEQUENCE, 5);
    put(&mut bytes, layout::AT_GENERATION_SEQUENCE, 1);
    fs::write(segment.path.with_file_name("dead"), &bytes).unwrap();
    let dead = open(&segment.path.with_file_name("dead"));
    let seen: Vec<_> = rows(&dead, "punts").iter().map(|row| row.index).collect();
    assert_eq!((seen, dead.generation()), (vec![1], None));
    assert_eq!(rows(&reader, "punts").len(), 2);
}

/// Reads all there is; what is there may be anything.
fn read_all(path: &Path) {
    let Ok(reader) = StatsReader::open(path) else { return };
    let _ = (reader.generation(), reader.life(UNIX_EPOCH), reader.heartbeat());
    for table in reader.tables() {
        for row in reader.rows(table) {
            assert_eq!(row.total.len(), table.columns.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), marked in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("random");
        let mut bytes = bytes;
        if marked && bytes.len() >= 4096 {
            let words = (bytes.len() / 8) as u64;
            put(&mut bytes, layout::AT_MAGIC, layout::MAGIC);
            put(&mut bytes, layout::AT_LAYOUT, layout::LAYOUT_VERSION);
            put(&mut bytes, layout::AT_FILE_WORDS, words);
            put(&mut bytes, layout::AT_WORKERS, 2);
            put(&mut bytes, layout::AT_TABLES, 3);
        }
        fs::write(&path, &bytes).unwrap();
        read_all(&path);
    }

    #[test]
    fn flipped_words_never_panic_a_reader(
        flips in proptest::collection::vec((0usize..4000, prop_oneof![any::<u64>(), 0u64..5000, Just(u64::MAX)]), 1..12),
        cut in proptest::option::of(0usize..4000),
    ) {
        let mut segment = segment();
        for row in 0..3 {
            segment.writer.set_label("punts", row, &[("class", "control"), ("help", "what it is")]).unwrap();
        }
        let mut bytes = fs::read(&segment.path).unwrap();
        for (at, word) in flips {
            let at = at % (bytes.len() / 8);
            put(&mut bytes, at, word);
        }
        bytes.truncate(bytes.len() - cut.unwrap_or(0).min(bytes.len()));
        let path = segment.path.with_file_name("flipped");
        fs::write(&path, &bytes).unwrap();
        read_all(&path);
    }
}
