//! Tables for people: columns as wide as what is in them, two blanks between.

use std::io::{self, Write};

use crate::output::Failure;

/// Rows under their heads.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Table {
        Table { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |at: usize| {
            self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// On standard output, under this line.
    ///
    /// # Errors
    /// Nobody reads it.
    pub(crate) fn print(&self, above: &str) -> Result<(), Failure> {
        let written = writeln!(io::stdout().lock(), "{}\n{}", plain(above), self.text().trim_end());
        written.map_err(|error| Failure::new(format!("cannot write the table: {error}")))
    }
}

/// What others say of themselves moves no cursor and breaks no line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_what_members_say_cannot_break_them() {
        let mut table = Table::new(["name", "id"]);
        table.row(["a\u{1b}[2J\n".to_owned(), "1".to_owned()]);
        table.row(["māori".to_owned(), "22".to_owned()]);
        assert_eq!(table.text(), "name    id\na\u{fffd}[2J\u{fffd}  1\nmāori   22\n");
    }
}
