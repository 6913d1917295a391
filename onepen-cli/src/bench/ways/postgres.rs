//! PostgreSQL, for who has a server to compare with. It is reached through a
//! socket while SQLite is linked in: the comparison says so wherever it shows.
//!
//! Guarantee: everything happens in one schema of our own, which is dropped at
//! the end; no table of the user is touched.

use std::collections::HashMap;
use std::error::Error;

use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{NoTls, Row, Statement};
use serde::{Deserialize, Serialize};

use super::{Client, Durability, Opened, Setup, Way};
use crate::bench::sql::{Fault, Session, Sql, Value};
use crate::bench::workloads::{Job, Variables};

/// Where PostgreSQL is, and our place in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// As `--postgres` was given.
    pub url: String,
    /// Letters, digits and underscores only.
    pub schema: String,
}

impl Server {
    /// Throws away what an earlier round left and makes the starting state.
    pub fn prepare(&self, load: &[Sql]) -> Result<(), Fault> {
        let mut client = postgres::Client::connect(&self.url, NoTls)?;
        client.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}; SET search_path TO {0}",
            self.schema
        ))?;
        for sql in load {
            client.batch_execute(&sql.postgres)?;
        }
        client.batch_execute("ANALYZE")?;
        Ok(())
    }

    /// Removes all traces.
    pub fn clean(&self) -> Result<(), Fault> {
        let mut client = postgres::Client::connect(&self.url, NoTls)?;
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema))?;
        Ok(())
    }

    /// The server's version, and the proof that it can be reached.
    pub fn version(&self) -> Result<String, Fault> {
        let mut client = postgres::Client::connect(&self.url, NoTls)?;
        Ok(client.query_one("SHOW server_version", &[])?.get(0))
    }

    /// A session, for looking at what a run left.
    pub fn session(&self) -> Result<OnServer, Fault> {
        self.connect(Durability::Full)
    }

    fn connect(&self, durability: Durability) -> Result<OnServer, Fault> {
        let mut client = postgres::Client::connect(&self.url, NoTls)?;
        let commit = match durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        client.batch_execute(&format!(
            "SET search_path TO {}; SET synchronous_commit TO {commit}",
            self.schema
        ))?;
        Ok(OnServer {
            client,
            statements: HashMap::new(),
        })
    }
}

/// Opens it.
pub fn open(setup: &Setup) -> Result<Opened, Fault> {
    let server = setup
        .server
        .clone()
        .ok_or_else(|| Fault::Workload("the way postgres needs --postgres URL".to_owned()))?;
    Ok(Opened::Threads(Box::new(Postgres {
        server,
        durability: setup.durability,
    })))
}

struct Postgres {
    server: Server,
    durability: Durability,
}

impl Way for Postgres {
    fn client(&self) -> Result<Box<dyn Client + '_>, Fault> {
        Ok(Box::new(self.server.connect(self.durability)?))
    }
}

/// One connection and its prepared statements.
pub struct OnServer {
    client: postgres::Client,
    statements: HashMap<String, Statement>,
}

impl Client for OnServer {
    fn run(&mut self, job: &Job) -> Result<(), Fault> {
        let mut variables = Variables::new();
        for part in 0..job.work().parts() {
            if job.work().part(part).is_single() {
                variables = job.work().run(part, &variables, self)?;
                continue;
            }
            self.client.batch_execute("BEGIN")?;
            match job.work().run(part, &variables, self) {
                Ok(answer) => variables = answer,
                Err(fault) => {
                    self.client.batch_execute("ROLLBACK")?;
                    return Err(fault);
                }
            }
            self.client.batch_execute("COMMIT")?;
        }
        Ok(())
    }
}

impl OnServer {
    fn query(&mut self, sql: &Sql, params: &[Value]) -> Result<Vec<Row>, Fault> {
        let statement = self.statement(sql)?;
        let bound: Vec<_> = params.iter().map(Bound).collect();
        Ok(self.client.query(&statement, &as_params(&bound))?)
    }

    fn statement(&mut self, sql: &Sql) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(&*sql.postgres) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&sql.postgres)?;
        self.statements
            .insert(sql.postgres.to_string(), statement.clone());
        Ok(statement)
    }
}

impl Session for OnServer {
    fn execute(&mut self, sql: &Sql, params: &[Value]) -> Result<usize, Fault> {
        let statement = self.statement(sql)?;
        let bound: Vec<_> = params.iter().map(Bound).collect();
        let changed = self.client.execute(&statement, &as_params(&bound))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn first(&mut self, sql: &Sql, params: &[Value], row: &mut [Value]) -> Result<bool, Fault> {
        let rows = self.query(sql, params)?;
        let Some(first) = rows.first() else {
            return Ok(false);
        };
        for (column, place) in row.iter_mut().enumerate() {
            *place = value(first, column)?;
        }
        Ok(true)
    }
}

fn value(row: &Row, column: usize) -> Result<Value, Fault> {
    let of = row.columns()[column].type_();
    Ok(match *of {
        Type::INT4 => row
            .get::<_, Option<i32>>(column)
            .map_or(Value::Null, |n| Value::Integer(n.into())),
        Type::INT8 => row
            .get::<_, Option<i64>>(column)
            .map_or(Value::Null, Value::Integer),
        Type::TEXT | Type::VARCHAR => row
            .get::<_, Option<String>>(column)
            .map_or(Value::Null, Value::Text),
        _ => {
            return Err(Fault::Workload(format!(
                "a column of PostgreSQL's type {of} came back: no workload has one"
            )));
        }
    })
}

fn as_params<'values>(bound: &'values [Bound<'values>]) -> Vec<&'values (dyn ToSql + Sync)> {
    bound.iter().map(|bound| bound as _).collect()
}

/// A value, sent as whatever type the server expects there.
#[derive(Debug)]
struct Bound<'value>(&'value Value);

impl ToSql for Bound<'_> {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self.0, of) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(n), &Type::INT4) => i32::try_from(*n)?.to_sql(of, out),
            (Value::Integer(n), _) => n.to_sql(of, out),
            (Value::Real(x), _) => x.to_sql(of, out),
            (Value::Text(text), _) => text.to_sql(of, out),
            (Value::Blob(bytes), _) => bytes.to_sql(of, out),
        }
    }

    fn accepts(of: &Type) -> bool {
        matches!(
            *of,
            Type::INT4 | Type::INT8 | Type::FLOAT8 | Type::TEXT | Type::VARCHAR | Type::BYTEA
        )
    }

    to_sql_checked!();
}
