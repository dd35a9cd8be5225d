//! Where one document of a stream ends and the next begins.
//!
//! YAML 1.2.2 §9.1: a line that begins with `---` or `...`, followed by white space or nothing, ends what came
//! before wherever it stands, even inside a block scalar or a quoted one. So a stream is cut by lines alone,
//! and a fault in one document leaves the others readable.

/// One document of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// How many lines of the file stand before it.
    pub lines_before: u32,
    /// Its text, without the marker.
    pub text: &'a str,
}

/// Cuts `text` at its document markers. A document of nothing but comments and blanks is left out.
#[must_use]
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let (mut at, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        if let Some(rest) = marker(line) {
            push(&mut found, &text[start..at], lines_before);
            // What follows `---` on its line belongs to the document, columns and all but three.
            (start, lines_before) = match rest {
                "" => (at + line.len(), line_number + 1),
                _ => (at + 3, line_number),
            };
        }
        at += line.len();
        line_number += 1;
    }
    push(&mut found, &text[start..], lines_before);
    found
}

/// What follows the marker on its line, trimmed; `None` if the line is no marker.
fn marker(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    let separated = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    let content = rest.trim();
    separated.then_some(if content.starts_with('#') { "" } else { content })
}

fn push<'a>(found: &mut Vec<Document<'a>>, text: &'a str, lines_before: u32) {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with(['#', '%']);
    if !text.lines().all(blank) {
        found.push(Document { lines_before, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_at_its_markers() {
        for (promise, text, expected) in [
            ("one document needs no marker", "a: 1\n", vec![(0, "a: 1\n")]),
            ("a marker at the start opens nothing before it", "---\na: 1\n", vec![(1, "a: 1\n")]),
            ("two documents know their lines", "a: 1\n---\nb: 2", vec![(0, "a: 1\n"), (2, "b: 2")]),
            ("comments alone are no document", "# x\n---\n\n---\nb: 2", vec![(4, "b: 2")]),
            ("a document may start on the marker's line", "--- {a: 1}\n", vec![(0, " {a: 1}\n")]),
            ("a marker may carry a comment", "--- # next\na: 1", vec![(1, "a: 1")]),
            ("three dots end a document", "a: 1\n...\nb: 2", vec![(0, "a: 1\n"), (2, "b: 2")]),
            ("an indented marker is text", "a: |\n  ---\n  x\n", vec![(0, "a: |\n  ---\n  x\n")]),
            ("a longer dash line is text", "----\n", vec![(0, "----\n")]),
            (
                "carriage returns end lines too",
                "a: 1\r\n---\r\nb: 2\r\n",
                vec![(0, "a: 1\r\n"), (2, "b: 2\r\n")],
            ),
            ("an empty file holds nothing", "", vec![]),
        ] {
            let found: Vec<_> = documents(text).iter().map(|d| (d.lines_before, d.text)).collect();
            assert_eq!(found, expected, "{promise}");
        }
    }
}
