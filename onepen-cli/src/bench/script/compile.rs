//! From a script's commands and a database to what can be run: which
//! statements write, which columns `\gset` names, what is one transaction.

use std::borrow::Cow;

use rusqlite::Connection;

use super::parse::{Command, parse};
use super::{Expression, ScriptError};
use crate::bench::sql::{Sql, Value};
use crate::bench::workloads::Part;

/// A script that has been checked against its database.
#[derive(Debug)]
pub struct Script {
    /// What stands between BEGIN and COMMIT, or one statement outside.
    pub transactions: Vec<Transaction>,
    /// The values variables have at the start.
    pub variables: Vec<Value>,
    /// Where `:client_id` is kept.
    pub client: usize,
}

/// One transaction of a script.
#[derive(Debug)]
pub struct Transaction {
    /// What it needs of a way.
    pub part: Part,
    /// In order.
    pub steps: Vec<Step>,
}

/// One step of it.
#[derive(Debug)]
pub enum Step {
    /// Computes a variable.
    Set {
        /// The variable's place.
        place: usize,
        /// Its value.
        expression: Expression,
        /// For errors.
        line: usize,
    },
    /// Runs a statement.
    Statement {
        /// Its text.
        sql: Sql,
        /// The variables that are its parameters.
        parameters: Vec<usize>,
        /// Whether it can answer rows.
        rows: bool,
        /// Where the columns of its first row go.
        gset: Vec<usize>,
        /// For errors.
        line: usize,
    },
}

impl Script {
    /// Reads a script and prepares every statement of it once.
    ///
    /// `define` are variables given from outside.
    pub fn compile(
        text: &str,
        connection: &Connection,
        define: &[(String, Value)],
    ) -> Result<Self, ScriptError> {
        let mut compiler = Compiler {
            connection,
            names: Vec::new(),
            values: Vec::new(),
        };
        let client = compiler.place("client_id");
        for (name, value) in define {
            let place = compiler.place(name);
            compiler.values[place] = value.clone();
        }
        let transactions = compiler.transactions(parse(text)?)?;
        Ok(Self {
            transactions,
            variables: compiler.values,
            client,
        })
    }
}

struct Compiler<'connection> {
    connection: &'connection Connection,
    names: Vec<String>,
    values: Vec<Value>,
}

impl Compiler<'_> {
    /// The place of a variable that gets a value here.
    fn place(&mut self, name: &str) -> usize {
        self.known(name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.values.push(Value::Null);
            self.names.len() - 1
        })
    }

    fn known(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    fn transactions(&mut self, commands: Vec<Command>) -> Result<Vec<Transaction>, ScriptError> {
        let mut transactions = Vec::new();
        let mut steps = Vec::new();
        let mut writes = false;
        let mut begun = None;
        for command in commands {
            match command {
                Command::Set {
                    line,
                    name,
                    expression,
                } => {
                    let expression = Expression::parse(&expression, &|name| self.known(name))
                        .map_err(|why| ScriptError::new(line, why))?;
                    let place = self.place(&name);
                    steps.push(Step::Set {
                        place,
                        expression,
                        line,
                    });
                }
                Command::Begin { line } => {
                    if let Some(first) = begun.replace(line) {
                        return Err(ScriptError::new(
                            line,
                            format!("BEGIN inside the transaction that began in line {first}"),
                        ));
                    }
                    writes = false;
                }
                Command::Commit { line } => {
                    begun
                        .take()
                        .ok_or_else(|| ScriptError::new(line, "COMMIT without BEGIN"))?;
                    transactions.push(Transaction {
                        part: if writes { Part::Write } else { Part::Read },
                        steps: std::mem::take(&mut steps),
                    });
                }
                Command::Statement {
                    line,
                    sql,
                    variables,
                    gset,
                } => {
                    let (step, step_writes) = self.statement(line, sql, &variables, gset)?;
                    steps.push(step);
                    writes |= step_writes;
                    if begun.is_none() {
                        transactions.push(Transaction {
                            part: if step_writes {
                                Part::WriteOne
                            } else {
                                Part::ReadOne
                            },
                            steps: std::mem::take(&mut steps),
                        });
                    }
                }
            }
        }
        if let Some(line) = begun {
            return Err(ScriptError::new(line, "this BEGIN has no COMMIT"));
        }
        if transactions.is_empty() {
            return Err(ScriptError::new(1, "the script has no SQL statement"));
        }
        Ok(transactions)
    }

    fn statement(
        &mut self,
        line: usize,
        sql: String,
        variables: &[String],
        gset: Option<String>,
    ) -> Result<(Step, bool), ScriptError> {
        let parameters = variables
            .iter()
            .map(|name| {
                self.known(name).ok_or_else(|| {
                    ScriptError::new(
                        line,
                        format!("the variable :{name} has no value here; \\set it before, or give --define {name}=…"),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = self
            .connection
            .prepare(&sql)
            .map_err(|error| ScriptError::new(line, error.to_string()))?;
        if prepared.parameter_count() != parameters.len() {
            return Err(ScriptError::new(
                line,
                "parameters must be :variables; ?, @ and $ cannot be given a value",
            ));
        }
        let rows = prepared.column_count() > 0;
        let gset = match gset {
            None => Vec::new(),
            Some(_) if !rows => {
                return Err(ScriptError::new(
                    line,
                    "\\gset after a statement that answers no row",
                ));
            }
            Some(prefix) => (0..prepared.column_count())
                .map(|column| {
                    let name = prepared
                        .column_name(column)
                        .map_err(|error| ScriptError::new(line, error.to_string()))?;
                    Ok(self.place(&format!("{prefix}{name}")))
                })
                .collect::<Result<_, _>>()?,
        };
        let writes = !prepared.readonly();
        Ok((
            Step::Statement {
                sql: Sql {
                    sqlite: sql.into(),
                    // Scripts never run there: their tables are in the SQLite file.
                    postgres: Cow::Borrowed(""),
                },
                parameters,
                rows,
                gset,
                line,
            },
            writes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Script, ScriptError> {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
            .unwrap();
        Script::compile(text, &connection, &[("scale".into(), Value::Integer(3))])
    }

    #[test]
    fn begin_and_commit_make_one_transaction_and_other_statements_their_own() {
        let script = compile(
            "\\set a 1
             SELECT n FROM t WHERE id = :a;
             BEGIN; SELECT n FROM t; UPDATE t SET n = :a; END;
             INSERT INTO t (n) VALUES (:scale);
             BEGIN; SELECT 1; SELECT 2; COMMIT;",
        )
        .unwrap();
        let parts: Vec<_> = script.transactions.iter().map(|t| t.part).collect();
        assert_eq!(
            parts,
            [Part::ReadOne, Part::Write, Part::WriteOne, Part::Read]
        );
        assert_eq!(script.transactions[0].steps.len(), 2);
    }

    #[test]
    fn a_query_with_a_cte_that_writes_is_a_write() {
        let script = compile("WITH x AS (SELECT 1) INSERT INTO t (n) SELECT * FROM x;").unwrap();
        assert_eq!(script.transactions[0].part, Part::WriteOne);
    }

    #[test]
    fn columns_of_gset_become_variables() {
        compile("SELECT n AS m FROM t \\gset my_\nUPDATE t SET n = :my_m;").unwrap();
    }

    #[test]
    fn what_does_not_fit_the_database_is_said_before_anything_runs() {
        for (text, line, part) in [
            ("\nSELECT x FROM t;", 2, "no such column: x"),
            ("SELECT :b;", 1, ":b has no value"),
            ("SELECT ?1;", 1, "parameters must be :variables"),
            ("BEGIN;\nBEGIN;", 2, "began in line 1"),
            ("SELECT 1;\nBEGIN;\nSELECT 1;", 2, "has no COMMIT"),
            ("COMMIT;", 1, "without BEGIN"),
            ("\\set a 1", 1, "no SQL statement"),
            ("UPDATE t SET n = 1 \\gset", 1, "answers no row"),
        ] {
            let error = compile(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }
}
