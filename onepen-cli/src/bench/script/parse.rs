//! Cuts a script's text into its commands. Knows nothing of a database.

use super::ScriptError;

/// One command of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `\set name expression`.
    Set {
        /// Where it begins.
        line: usize,
        /// The variable.
        name: String,
        /// Not yet parsed.
        expression: String,
    },
    /// BEGIN or START TRANSACTION.
    Begin {
        /// Where it stands.
        line: usize,
    },
    /// COMMIT or END.
    Commit {
        /// Where it stands.
        line: usize,
    },
    /// Any other statement.
    Statement {
        /// Where it begins.
        line: usize,
        /// With `?1`, `?2`, … in place of the variables.
        sql: String,
        /// The variables, in the order of their numbers.
        variables: Vec<String>,
        /// The prefix of `\gset`, when its first row becomes variables.
        gset: Option<String>,
    },
}

/// Cuts a script into commands.
pub fn parse(text: &str) -> Result<Vec<Command>, ScriptError> {
    let mut scanner = Scanner {
        rest: text,
        line: 1,
        commands: Vec::new(),
        statement: Statement::default(),
    };
    scanner.run()?;
    Ok(scanner.commands)
}

#[derive(Default)]
struct Statement {
    line: usize,
    sql: String,
    variables: Vec<String>,
}

impl Statement {
    fn is_empty(&self) -> bool {
        self.line == 0
    }
}

struct Scanner<'text> {
    rest: &'text str,
    line: usize,
    commands: Vec<Command>,
    statement: Statement,
}

impl<'text> Scanner<'text> {
    fn run(&mut self) -> Result<(), ScriptError> {
        while let Some(next) = self.rest.chars().next() {
            match next {
                '\'' | '"' | '`' => self.quoted(next)?,
                '[' => self.quoted(']')?,
                '-' if self.rest.starts_with("--") => {
                    let comment = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.take(comment);
                }
                '/' if self.rest.starts_with("/*") => {
                    let end = self.rest.find("*/").ok_or_else(|| {
                        ScriptError::new(self.line, "this comment has no end: */ is missing")
                    })?;
                    self.take(end + 2);
                    self.push(" ");
                }
                '\\' => self.meta()?,
                ';' => {
                    self.take(1);
                    self.end_statement(None)?;
                }
                ':' => self.colon(),
                _ => {
                    let text = self.take(next.len_utf8());
                    self.push(text);
                }
            }
        }
        if self.statement.is_empty() {
            Ok(())
        } else {
            Err(ScriptError::new(
                self.statement.line,
                "this statement has no end: ; is missing",
            ))
        }
    }

    /// Consumes this many bytes.
    fn take(&mut self, bytes: usize) -> &'text str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Adds to the statement; white space before its first word is dropped.
    fn push(&mut self, text: &str) {
        if self.statement.is_empty() {
            if text.trim().is_empty() {
                return;
            }
            self.statement.line = self.line;
        }
        self.statement.sql.push_str(text);
    }

    fn quoted(&mut self, end: char) -> Result<(), ScriptError> {
        let line = self.line;
        // A doubled quote is two neighbouring literals to this scanner: same text.
        let close = self.rest[1..].find(end).ok_or_else(|| {
            ScriptError::new(line, format!("this text has no end: {end} is missing"))
        })?;
        if self.statement.is_empty() {
            self.statement.line = line;
        }
        let text = self.take(close + 2);
        self.statement.sql.push_str(text);
        Ok(())
    }

    fn colon(&mut self) {
        let name = self.rest[1..]
            .find(|c: char| !is_name(c))
            .map_or(&self.rest[1..], |end| &self.rest[1..=end]);
        if name.is_empty() {
            // A lone colon, or the first of `::`.
            let colons = if self.rest.starts_with("::") { 2 } else { 1 };
            let text = self.take(colons);
            self.push(text);
            return;
        }
        self.take(1 + name.len());
        let variables = &mut self.statement.variables;
        let number = variables
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                variables.push(name.to_owned());
                variables.len() - 1
            });
        self.push(&format!("?{}", number + 1));
    }

    fn meta(&mut self) -> Result<(), ScriptError> {
        let line = self.line;
        let mut text = String::new();
        loop {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let part = self.take(end).trim_end_matches('\r');
            if !self.rest.is_empty() {
                self.take(1);
            }
            match part.strip_suffix('\\').filter(|part| !part.is_empty()) {
                Some(continued) if !self.rest.is_empty() => {
                    text.push_str(continued);
                    text.push(' ');
                }
                _ => {
                    text.push_str(part);
                    break;
                }
            }
        }
        let mut words = text[1..].splitn(2, char::is_whitespace);
        let name = words.next().unwrap_or_default();
        let arguments = words.next().unwrap_or_default().trim();
        match name {
            "gset" if !self.statement.is_empty() => self.end_statement(Some(arguments.to_owned())),
            "gset" => Err(ScriptError::new(line, "\\gset must follow a query")),
            _ if !self.statement.is_empty() => Err(ScriptError::new(
                line,
                format!(
                    "\\{name} in the middle of the statement of line {}: ; is missing before it",
                    self.statement.line
                ),
            )),
            "set" => self.set(line, arguments),
            _ => Err(ScriptError::new(
                line,
                format!("\\{name} is not supported; \\set and \\gset are"),
            )),
        }
    }

    fn set(&mut self, line: usize, arguments: &str) -> Result<(), ScriptError> {
        let (name, expression) = arguments
            .split_once(char::is_whitespace)
            .filter(|(name, _)| name.chars().all(is_name))
            .ok_or_else(|| {
                ScriptError::new(
                    line,
                    "\\set wants a name and an expression: \\set n random(1, 100)",
                )
            })?;
        self.commands.push(Command::Set {
            line,
            name: name.to_owned(),
            expression: expression.trim().to_owned(),
        });
        Ok(())
    }

    fn end_statement(&mut self, gset: Option<String>) -> Result<(), ScriptError> {
        let Statement {
            line,
            sql,
            variables,
        } = std::mem::take(&mut self.statement);
        let sql = sql.trim().to_owned();
        if sql.is_empty() {
            return Ok(());
        }
        let words: Vec<_> = sql
            .split_whitespace()
            .take(2)
            .map(str::to_ascii_uppercase)
            .collect();
        let second = words.get(1).map_or("", String::as_str);
        self.commands.push(match words[0].as_str() {
            "BEGIN" => Command::Begin { line },
            "START" if second == "TRANSACTION" => Command::Begin { line },
            "COMMIT" | "END" => Command::Commit { line },
            word @ ("ROLLBACK" | "SAVEPOINT" | "RELEASE") => {
                return Err(ScriptError::new(
                    line,
                    format!("{word} is not supported: a script's transactions all commit"),
                ));
            }
            word @ ("PRAGMA" | "ATTACH" | "DETACH" | "VACUUM") => {
                return Err(ScriptError::new(
                    line,
                    format!(
                        "{word} is not supported: how connections are set up is what the ways differ in"
                    ),
                ));
            }
            _ => Command::Statement {
                line,
                sql,
                variables,
                gset,
            },
        });
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> (String, Vec<String>) {
        match parse(text).unwrap().pop() {
            Some(Command::Statement { sql, variables, .. }) => (sql, variables),
            other => panic!("expected a statement, got {other:?}"),
        }
    }

    #[test]
    fn variables_become_parameters_and_the_same_one_the_same_number() {
        let (sql, variables) = statement("SELECT :a, :b_2 + :a FROM t;");
        assert_eq!(sql, "SELECT ?1, ?2 + ?1 FROM t");
        assert_eq!(variables, ["a", "b_2"]);
    }

    #[test]
    fn a_colon_in_a_text_a_name_or_a_comment_is_not_a_variable() {
        let (sql, variables) =
            statement("SELECT '12:30', 'it''s :x', \":y\", [:z], `:q` -- :c ; '\n/* :d; */;");
        assert_eq!(sql, "SELECT '12:30', 'it''s :x', \":y\", [:z], `:q`");
        assert!(variables.is_empty());
    }

    #[test]
    fn a_semicolon_in_a_text_does_not_end_a_statement() {
        assert_eq!(statement("SELECT ';', 'ä';").0, "SELECT ';', 'ä'");
    }

    #[test]
    fn set_may_be_continued_on_the_next_line() {
        assert_eq!(
            parse("\\set a \\\n  random(1, \\\n  2)\n").unwrap(),
            [Command::Set {
                line: 1,
                name: "a".into(),
                expression: "random(1,    2)".into()
            }]
        );
    }

    #[test]
    fn begin_and_commit_are_recognised_in_all_their_spellings() {
        let commands = parse(
            "BEGIN; END; begin immediate transaction; commit; START TRANSACTION; END TRANSACTION;",
        )
        .unwrap();
        assert!(
            commands
                .chunks(2)
                .all(|pair| matches!(pair, [Command::Begin { .. }, Command::Commit { .. }]))
        );
        assert_eq!(commands.len(), 6);
    }

    #[test]
    fn gset_ends_a_query_and_names_its_variables() {
        let commands = parse("SELECT n FROM t \\gset\nSELECT n FROM t\n\\gset p_\n").unwrap();
        let prefixes: Vec<_> = commands
            .iter()
            .map(|command| match command {
                Command::Statement { gset, .. } => gset.as_deref(),
                _ => None,
            })
            .collect();
        assert_eq!(prefixes, [Some(""), Some("p_")]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, part) in [
            ("\n\nSELECT 1", 3, "; is missing"),
            ("SELECT 'a;\n", 1, "' is missing"),
            ("SELECT 1;\n/* never ends", 2, "*/ is missing"),
            ("SELECT 1;\nROLLBACK;", 2, "ROLLBACK is not supported"),
            ("PRAGMA synchronous = OFF;", 1, "PRAGMA is not supported"),
            ("\\sleep 1 ms", 1, "\\sleep is not supported"),
            ("\\set a", 1, "\\set wants a name"),
            ("SELECT 1\n\\set a 1", 2, "line 1: ; is missing"),
            ("\\gset", 1, "must follow a query"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }
}
