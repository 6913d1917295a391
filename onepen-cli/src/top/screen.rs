//! The live view: what the keys do, and what is drawn. Neither knows where pictures
//! come from.

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table};

use super::order::{Sort, arrange};
use super::picture::{Does, Is, Picture};
use super::text::{COLUMNS, cells, heading, is_number};

/// The shortest and the longest time between two looks.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// What the user has chosen.
pub struct Screen {
    pub interval: Duration,
    sort: Sort,
    reverse: bool,
    filter: String,
    /// Keys go into the filter.
    typing: bool,
    pub paused: bool,
    help: bool,
    /// The first row that is shown.
    top: usize,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Draw,
    Quit,
    Nothing,
}

impl Screen {
    pub fn new(interval: Duration, sort: Sort, filter: String) -> Self {
        Self {
            interval,
            sort,
            reverse: false,
            filter,
            typing: false,
            paused: false,
            help: false,
            top: 0,
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> After {
        if key.kind == KeyEventKind::Release {
            return After::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return After::Quit;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(letter) if !letter.is_control() => self.filter.push(letter),
                _ => return After::Nothing,
            }
            self.top = 0;
            return After::Draw;
        }
        if self.help {
            self.help = false;
            return After::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return After::Quit,
            KeyCode::Esc if self.filter.is_empty() => return After::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+') => self.interval = (self.interval * 2).min(INTERVALS.1),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(INTERVALS.0),
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.top = self.top.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = self.top.saturating_add(10),
            KeyCode::PageUp => self.top = self.top.saturating_sub(10),
            KeyCode::Home => self.top = 0,
            _ => return After::Nothing,
        }
        After::Draw
    }

    /// Draws `picture`, and whatever went wrong in the last look.
    pub fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        picture: Option<&Picture>,
        trouble: Option<&str>,
    ) {
        let area = frame.area();
        let [above, table, below] = Layout::vertical([
            Constraint::Length(4),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(area);
        if let Some(picture) = picture {
            let mut lines: Vec<Line<'_>> = heading(picture).into_iter().map(Line::from).collect();
            if let Some(first) = lines.first_mut() {
                *first = std::mem::take(first).bold();
            }
            frame.render_widget(Paragraph::new(lines), above);
            self.table(frame, table, picture);
        } else {
            frame.render_widget(Paragraph::new("looking …"), above);
        }
        let below_is = match (trouble, picture.and_then(|picture| picture.unseen.first())) {
            _ if self.typing => Line::from(format!("/{}█  Enter keeps, Esc clears", self.filter)),
            (Some(trouble), _) => Line::from(trouble.to_owned()).red(),
            (None, Some(unseen)) => Line::from(unseen.clone()).yellow(),
            (None, None) => self.footer(),
        };
        frame.render_widget(Paragraph::new(below_is), below);
        if self.help {
            draw_help(frame, area);
        }
    }

    fn footer(&self) -> Line<'_> {
        let mut text = format!(
            "q quit  s sort: {}{}  / filter",
            self.sort.word(),
            if self.reverse { ", reversed" } else { "" },
        );
        if !self.filter.is_empty() {
            text += &format!(": {}", self.filter);
        }
        text += if self.paused {
            "  p goes on"
        } else {
            "  p pause"
        };
        text += &format!("  +/- every {:?}  h help", self.interval);
        Line::from(text).dim()
    }

    fn table(&mut self, frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
        let mut rows = picture.rows.clone();
        arrange(&mut rows, self.sort, self.reverse, &self.filter);
        let room = usize::from(area.height.saturating_sub(1));
        self.top = self.top.min(rows.len().saturating_sub(room));
        let shown = rows.iter().skip(self.top).take(room).map(|row| {
            let mut style = match row.does {
                Does::Writes => Style::new().fg(Color::Green),
                Does::Waits => Style::new().fg(Color::Cyan),
                _ => Style::new(),
            };
            if row.is == Is::Stranger && row.does != Does::Idle {
                style = style.fg(Color::Yellow);
            }
            if row.stopped {
                style = style.fg(Color::Red).add_modifier(Modifier::BOLD);
            }
            let cells = cells(row);
            Row::new(
                cells
                    .into_iter()
                    .enumerate()
                    .map(|(at, cell)| aligned(at, cell)),
            )
            .style(style)
        });
        let head = COLUMNS
            .iter()
            .enumerate()
            .map(|(at, (name, _))| aligned(at, (*name).to_owned()));
        let widths = COLUMNS.iter().enumerate().map(|(at, (_, width))| match at {
            1 => Constraint::Min(*width),
            _ => Constraint::Length(*width),
        });
        let table = Table::new(shown, widths)
            .header(Row::new(head).style(Style::new().add_modifier(Modifier::REVERSED)))
            .column_spacing(1);
        frame.render_widget(table, area);
    }
}

fn aligned(column: usize, text: String) -> Cell<'static> {
    let side = if is_number(column) {
        Alignment::Right
    } else {
        Alignment::Left
    };
    Cell::new(Text::from(text).alignment(side))
}

const HELP: &str = "\
 DOES      what the process does now: the writer, its place in line,
           a read; and for how long (of strangers: at least)
 TX/S      transactions committed each second
 WAITS/S   how often it stood in line
 LONGEST   its longest wait since it opened the database
 PINS      the log's frame where its snapshot ends, and for how long:
           the log cannot begin anew while somebody needs it
 - means that nobody counts it: strangers tell nothing of themselves.

 q, Esc    quit             s         sort by the next column
 r         the other way    / text    only rows with this text
 p, space  stop and go on   + -       slower, faster
 arrows, PgUp, PgDn         scroll
                                            any key closes this
";

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let height = (HELP.lines().count() as u16).min(area.height);
    let width = 70.min(area.width);
    let place = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(HELP).style(Style::new().add_modifier(Modifier::REVERSED)),
        place,
    );
}
