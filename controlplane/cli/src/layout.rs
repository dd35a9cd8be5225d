//! Columns that line up, and numbers as people read them.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// Names longer than this are cut in the middle, unless everything is asked for.
const MOST_NAME_CHARS: usize = 48;

/// What a cell says about the box, for those who see colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Neither good nor bad.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Someone must act.
    Bad,
}

/// One entry of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(crate) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), paint: Paint::Plain }
    }
}

/// Rows under a heading. A heading that begins with `>` is of a column of numbers, aligned to the right.
pub(crate) struct Grid {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Grid {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table, every line ended, without blanks at the ends of lines. Columns in which nothing stands are
    /// left out.
    pub(crate) fn render(&self, style: Style) -> String {
        let columns: Vec<Column> =
            (0..self.headings.len()).filter_map(|index| self.column(index)).collect();
        let mut text = String::new();
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|heading| Cell::from(heading.trim_start_matches('>')))
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for column in &columns {
                let empty = Cell::default();
                column.put(&mut line, row.get(column.index).unwrap_or(&empty), style);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn column(&self, index: usize) -> Option<Column> {
        let heading = self.headings[index];
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        let widest =
            cells.map(|cell| cell.text.chars().count()).max().filter(|&widest| widest > 0)?;
        let title = heading.trim_start_matches('>');
        let width = widest.max(title.chars().count());
        Some(Column { index, width, to_the_right: heading.starts_with('>') })
    }
}

struct Column {
    index: usize,
    width: usize,
    to_the_right: bool,
}

impl Column {
    fn put(&self, line: &mut String, cell: &Cell, style: Style) {
        if !line.is_empty() {
            line.push_str("  ");
        }
        let blanks = self.width.saturating_sub(cell.text.chars().count());
        let (before, after) = if self.to_the_right { (blanks, 0) } else { (0, blanks) };
        let text = style.paint(&cell.text, cell.paint);
        let _ = write!(line, "{:before$}{text}{:after$}", "", ""); // writing to a String cannot fail
    }
}

/// How a page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// With colours.
    pub(crate) colour: bool,
    /// Everything, and exact: no short numbers, no cut names, no row left out.
    pub(crate) verbose: bool,
}

impl Style {
    /// `text` in the colour of `paint`.
    pub(crate) fn paint(self, text: &str, paint: Paint) -> String {
        match paint {
            Paint::Good if self.colour => format!("\x1b[32m{text}\x1b[0m"),
            Paint::Bad if self.colour => format!("\x1b[1;31m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// A count: exact below 100 000, then three or four digits and k, M, G, T, P or E.
    pub(crate) fn count(self, count: u64) -> String {
        if self.verbose || count < 100_000 {
            return count.to_string();
        }
        let mut scaled = count as f64; // four digits are shown, 53 bits are enough
        let mut units = " kMGTPE".chars();
        let mut unit = units.next();
        while scaled >= 999.95 {
            scaled /= 1000.0;
            unit = units.next();
        }
        format!("{scaled:.1}{}", unit.unwrap_or('?'))
    }

    /// A name, cut in the middle if it is very long.
    pub(crate) fn name(self, name: &str) -> String {
        let chars: Vec<char> = name.chars().collect();
        if self.verbose || chars.len() <= MOST_NAME_CHARS {
            return name.to_owned();
        }
        let half = MOST_NAME_CHARS / 2;
        let (head, tail) = (&chars[..half], &chars[chars.len() - (MOST_NAME_CHARS - half - 1)..]);
        head.iter().chain(['…'].iter()).chain(tail).collect()
    }
}

/// A length of time in its two largest units: `0.2 s`, `12 s`, `3 h 5 min`, `2 d 1 h`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match seconds {
            0..10 => write!(f, "{:.1} s", self.0.as_millis() as f64 / 1000.0),
            10..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{minutes} min {} s", seconds % 60),
            3600..86_400 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Style = Style { colour: false, verbose: false };
    const EXACT: Style = Style { colour: false, verbose: true };

    #[test]
    fn columns_line_up_and_empty_ones_go() {
        let mut grid = Grid::new(&["NAME", ">PACKETS", "WHY", "NOTE"]);
        grid.row(["a".into(), "1".into(), Cell::default(), "ünïcode".into()]);
        grid.row(["longer".into(), "12345678".into()]);
        let expected = "\
NAME     PACKETS  NOTE
a              1  ünïcode
longer  12345678
";
        assert_eq!(grid.render(SHORT), expected);
    }

    #[test]
    fn colours_do_not_move_columns_and_are_only_for_terminals() {
        let mut grid = Grid::new(&["STATE", "PID"]);
        grid.row([Cell::painted("down", Paint::Bad), "7".into()]);
        grid.row([Cell::painted("running", Paint::Good), "8".into()]);
        assert_eq!(grid.render(SHORT), "STATE    PID\ndown     7\nrunning  8\n");
        let coloured = grid.render(Style { colour: true, ..SHORT });
        assert!(coloured.contains("\x1b[1;31mdown\x1b[0m     7\n"), "{coloured:?}");
    }

    #[test]
    fn counts_are_short_for_people_and_exact_on_request() {
        let rows = [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100.0k"),
            (999_949, "999.9k"),
            (999_950, "1.0M"),
            (1_234_567_890, "1.2G"),
            (u64::MAX, "18.4E"),
        ];
        for (count, short) in rows {
            assert_eq!(SHORT.count(count), short);
            assert_eq!(EXACT.count(count), count.to_string());
        }
    }

    #[test]
    fn long_names_keep_both_ends() {
        let name = format!("namespace/{}/http", "x".repeat(60));
        let cut = SHORT.name(&name);
        assert_eq!(cut.chars().count(), MOST_NAME_CHARS);
        assert!(
            cut.starts_with("namespace/xx") && cut.contains('…') && cut.ends_with("xx/http"),
            "{cut}"
        );
        assert_eq!(EXACT.name(&name), name);
        assert_eq!(SHORT.name("default/web/http"), "default/web/http");
    }

    #[test]
    fn spans_show_two_units() {
        let rows = [
            (180, "0.2 s"),
            (9_940, "9.9 s"),
            (12_900, "12 s"),
            (61_000, "1 min 1 s"),
            (3_600_000 * 3 + 60_000 * 5, "3 h 5 min"),
            (86_400_000 * 40, "40 d 0 h"),
        ];
        for (milliseconds, expected) in rows {
            assert_eq!(Span(Duration::from_millis(milliseconds)).to_string(), expected);
        }
    }
}
