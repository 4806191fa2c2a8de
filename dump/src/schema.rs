//! Definitions: what a server says of them, in the order in which another one takes them.

use std::collections::BTreeMap;

use common::mysql::{FromRow, FromValue, Row, Session};
use common::names::account;
use common::sql::{Account, Identifier, quote_str};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::manifest::{Column, Kind, Statement};
use crate::split::split;

/// Longest question about definitions.
const ASK: Duration = Duration::from_secs(60);
/// Schemas that every server has.
const SYSTEM: &str = "'mysql','sys','performance_schema','information_schema'";

/// A table as it is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Columns whose values are dumped.
    pub columns: Vec<Column>,
    /// First column of the primary key, when it is an integer.
    pub key: Option<String>,
    /// Bytes of its rows, by the server's estimate.
    pub bytes: u64,
}

impl Table {
    /// As in SQL.
    pub fn quoted(&self) -> Result<String> {
        qualified(&self.schema, &self.name)
    }
}

/// `schema`.`name`, in backticks.
pub fn qualified(schema: &str, name: &str) -> Result<String> {
    Ok(format!("{}.{}", Identifier::new(schema)?.quoted(), Identifier::new(name)?.quoted()))
}

/// Everything that is defined.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// Tables with rows.
    pub tables: Vec<Table>,
    /// How to make all of it, in this order.
    pub statements: Vec<Statement>,
    /// How to make the accounts.
    pub accounts: Vec<Statement>,
}

/// What is dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Schemas; empty: all.
    pub schemas: Vec<String>,
    /// Tables that are left out: schema and name.
    pub without: Vec<(String, String)>,
}

/// Schema and name of a table that is written as in `spec.excludeTables`: with a dot between, each in backticks where it holds one.
pub fn table(text: &str) -> Option<(String, String)> {
    let plain = |name: &str| {
        let inner = name.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        inner.map_or_else(|| name.to_owned(), |inner| inner.replace("``", "`"))
    };
    // A name in backticks may hold a dot.
    let at = if text.starts_with('`') { text.find("`.").map(|at| at + 1) } else { text.find('.') }?;
    let (schema, table) = text.split_at_checked(at)?;
    let table = table.strip_prefix('.').filter(|table| !table.is_empty() && !schema.is_empty())?;
    Some((plain(schema), plain(table)))
}

impl Selection {
    /// As the spec of a MySQLDump has it.
    pub fn new(schemas: &[String], without: &[String]) -> Self {
        Self { schemas: schemas.to_vec(), without: without.iter().filter_map(|text| table(text)).collect() }
    }

    fn takes(&self, schema: &str, table: &str) -> bool {
        !self.without.iter().any(|(of, name)| of == schema && name == table)
    }

    pub(crate) fn condition(&self, column: &str) -> String {
        if self.schemas.is_empty() {
            return format!("{column} NOT IN ({SYSTEM})");
        }
        let names: Vec<String> = self.schemas.iter().map(|name| quote_str(name, false)).collect();
        format!("{column} IN ({}) AND {column} NOT IN ({SYSTEM})", names.join(","))
    }
}

pub(crate) async fn rows<T: FromRow + Send + 'static>(session: &mut Session, sql: &str) -> Result<Vec<T>> {
    Ok(session.rows(sql, ASK).await?)
}

/// Columns of the one row of a SHOW statement, by name: they differ between versions.
async fn shown(session: &mut Session, sql: &str) -> Result<Shown> {
    let row: Option<Row> = session.first(sql, ASK).await?;
    row.map(Shown).ok_or_else(|| Error::Answer(format!("nothing to {sql}")))
}

struct Shown(Row);

impl Shown {
    fn get<T: FromValue>(&self, column: &str) -> Result<T> {
        let value = self.0.get_opt::<T, _>(column).and_then(std::result::Result::ok);
        value.ok_or_else(|| Error::Answer(format!("no {column}")))
    }

    /// A definition, with its `sql_mode` and collation.
    fn statement(&self, kind: Kind, schema: &str, name: &str, column: &str) -> Result<Statement> {
        let text: Option<String> = self.get(column)?;
        let text =
            text.ok_or_else(|| Error::Unsupported(format!("the definition of {schema}.{name} may not be read")))?;
        let collation: String = self.get("collation_connection")?;
        Ok(Statement {
            schema: Some(schema.to_owned()),
            sql_mode: if kind == Kind::View { None } else { Some(self.get("sql_mode")?) },
            // The text goes as utf8mb4, whatever client it came from first.
            collation: Some(collation).filter(|name| name.starts_with("utf8mb4_")),
            ..Statement::new(kind, name, text)
        })
    }
}

/// Reads all definitions. Nobody may change them meanwhile.
///
/// # Errors
/// The server's; what cannot be dumped.
pub async fn read(session: &mut Session, selection: &Selection) -> Result<Definitions> {
    let mut found = Definitions::default();
    let condition = selection.condition("SCHEMA_NAME");
    let schemas: Vec<(String,)> = rows(
        session,
        &format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE {condition} ORDER BY SCHEMA_NAME"),
    )
    .await?;
    // The server may not tell cases apart.
    let is_there = |name: &&String| schemas.iter().any(|(schema,)| schema.eq_ignore_ascii_case(name));
    if let Some(missing) = selection.schemas.iter().find(|name| !is_there(name)) {
        return Err(Error::Unsupported(format!("there is no schema {missing}, or it is the server's own")));
    }
    for (schema,) in &schemas {
        let shown =
            shown(session, &format!("SHOW CREATE DATABASE {}", Identifier::new(schema.as_str())?.quoted())).await?;
        found.statements.push(Statement::new(Kind::Schema, schema, shown.get::<String>("Create Database")?));
    }
    let later = tables(session, selection, &mut found).await?;
    found.statements.extend(later);
    // Functions before the views that use them; triggers and events see everything.
    routines(session, selection, &mut found.statements).await?;
    views(session, selection, &mut found.statements).await?;
    triggers(session, selection, &mut found.statements).await?;
    events(session, selection, &mut found.statements).await?;
    found.accounts = accounts(session).await?;
    Ok(found)
}

async fn tables(session: &mut Session, selection: &Selection, found: &mut Definitions) -> Result<Vec<Statement>> {
    let condition = selection.condition("TABLE_SCHEMA");
    let listed: Vec<(String, String, Option<String>, Option<u64>)> = rows(
        session,
        &format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, DATA_LENGTH FROM information_schema.TABLES \
             WHERE {condition} AND TABLE_TYPE='BASE TABLE' ORDER BY TABLE_SCHEMA, TABLE_NAME"
        ),
    )
    .await?;
    let described: Vec<(String, String, String, String, String)> = rows(
        session,
        &format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, CAST(DATA_TYPE AS CHAR), CAST(EXTRA AS CHAR) \
             FROM information_schema.COLUMNS WHERE {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ),
    )
    .await?;
    let mut columns: BTreeMap<(String, String), Vec<Column>> = BTreeMap::new();
    for (schema, table, name, kind, extra) in described {
        // A default that is an expression says DEFAULT_GENERATED.
        if !extra.contains("VIRTUAL GENERATED") && !extra.contains("STORED GENERATED") {
            columns.entry((schema, table)).or_default().push(Column { name, kind: kind.to_ascii_lowercase() });
        }
    }
    let keys: Vec<(String, String, String)> = rows(
        session,
        &format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
             WHERE {condition} AND INDEX_NAME='PRIMARY' AND SEQ_IN_INDEX=1 AND COLUMN_NAME IS NOT NULL"
        ),
    )
    .await?;
    let keys: BTreeMap<(String, String), String> =
        keys.into_iter().map(|(schema, table, column)| ((schema, table), column)).collect();
    let (mut indexes, mut foreign) = (Vec::new(), Vec::new());
    for (schema, name, engine, bytes) in listed.into_iter().filter(|(schema, name, ..)| selection.takes(schema, name)) {
        if engine.as_deref() != Some("InnoDB") {
            let engine = engine.unwrap_or_else(|| "no engine".to_owned());
            return Err(Error::Unsupported(format!("{schema}.{name} is {engine}: a consistent dump takes InnoDB")));
        }
        let shown = shown(session, &format!("SHOW CREATE TABLE {}", qualified(&schema, &name)?)).await?;
        let split = split(&shown.get::<String>("Create Table")?);
        let of = |kind, text: String| Statement { schema: Some(schema.clone()), ..Statement::new(kind, &name, text) };
        found.statements.push(of(Kind::Table, split.create));
        let table = Identifier::new(name.as_str())?.quoted();
        let adds = |adds: &Vec<String>| format!("ALTER TABLE {table} {}", adds.join(", "));
        indexes.extend(split.indexes.iter().map(|index| of(Kind::Index, adds(index))));
        if !split.foreign.is_empty() {
            foreign.push(of(Kind::ForeignKey, adds(&split.foreign)));
        }
        let place = (schema.clone(), name.clone());
        let columns = columns.remove(&place).unwrap_or_default();
        let key =
            keys.get(&place).filter(|key| columns.iter().any(|column| column.name == **key && is_integer(column)));
        let key = key.cloned();
        found.tables.push(Table { schema, name, columns, key, bytes: bytes.unwrap_or(0) });
    }
    indexes.extend(foreign);
    Ok(indexes)
}

fn is_integer(column: &Column) -> bool {
    matches!(column.kind.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

async fn routines(session: &mut Session, selection: &Selection, statements: &mut Vec<Statement>) -> Result<()> {
    let condition = selection.condition("ROUTINE_SCHEMA");
    let listed: Vec<(String, String, String)> = rows(
        session,
        &format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, CAST(ROUTINE_TYPE AS CHAR) FROM information_schema.ROUTINES \
             WHERE {condition} ORDER BY ROUTINE_TYPE, ROUTINE_SCHEMA, ROUTINE_NAME"
        ),
    )
    .await?;
    for (schema, name, kind) in listed {
        let shown = shown(session, &format!("SHOW CREATE {kind} {}", qualified(&schema, &name)?)).await?;
        let column = if kind == "FUNCTION" { "Create Function" } else { "Create Procedure" };
        statements.push(shown.statement(Kind::Routine, &schema, &name, column)?);
    }
    Ok(())
}

async fn views(session: &mut Session, selection: &Selection, statements: &mut Vec<Statement>) -> Result<()> {
    let condition = selection.condition("TABLE_SCHEMA");
    let listed: Vec<(String, String)> = rows(
        session,
        &format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE {condition} AND TABLE_TYPE='VIEW' \
             ORDER BY TABLE_SCHEMA, TABLE_NAME"
        ),
    )
    .await?;
    for (schema, name) in listed.into_iter().filter(|(schema, name)| selection.takes(schema, name)) {
        let shown = shown(session, &format!("SHOW CREATE VIEW {}", qualified(&schema, &name)?)).await?;
        statements.push(shown.statement(Kind::View, &schema, &name, "Create View")?);
    }
    Ok(())
}

async fn triggers(session: &mut Session, selection: &Selection, statements: &mut Vec<Statement>) -> Result<()> {
    let condition = selection.condition("TRIGGER_SCHEMA");
    let listed: Vec<(String, String, String)> = rows(
        session,
        &format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE {condition} \
             ORDER BY TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER"
        ),
    )
    .await?;
    for (schema, name, _) in listed.into_iter().filter(|(schema, _, table)| selection.takes(schema, table)) {
        let shown = shown(session, &format!("SHOW CREATE TRIGGER {}", qualified(&schema, &name)?)).await?;
        statements.push(shown.statement(Kind::Trigger, &schema, &name, "SQL Original Statement")?);
    }
    Ok(())
}

async fn events(session: &mut Session, selection: &Selection, statements: &mut Vec<Statement>) -> Result<()> {
    let condition = selection.condition("EVENT_SCHEMA");
    let listed: Vec<(String, String)> = rows(
        session,
        &format!("SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE {condition} ORDER BY EVENT_SCHEMA, EVENT_NAME"),
    )
    .await?;
    for (schema, name) in listed {
        let shown = shown(session, &format!("SHOW CREATE EVENT {}", qualified(&schema, &name)?)).await?;
        let mut statement = shown.statement(Kind::Event, &schema, &name, "Create Event")?;
        statement.time_zone = Some(shown.get("time_zone")?);
        // A replica, which may be what is dumped, keeps the events of its source from running.
        for off in [" DISABLE ON REPLICA ", " DISABLE ON SLAVE "] {
            statement.text = statement.text.replacen(off, " ENABLE ", 1);
        }
        statements.push(statement);
    }
    Ok(())
}

/// Accounts of users; those of Pelorus are every cluster's own.
async fn accounts(session: &mut Session) -> Result<Vec<Statement>> {
    session.exec("SET SESSION print_identified_with_as_hex=ON", ASK).await?;
    // Roles first: a user may have one by default.
    let listed: Vec<(String, String)> = rows(
        session,
        "SELECT user.User, user.Host FROM mysql.user WHERE user.User NOT LIKE 'mysql.%' AND user.User <> '' ORDER BY \
         NOT EXISTS(SELECT 1 FROM mysql.role_edges WHERE FROM_USER=user.User AND FROM_HOST=user.Host), user.User, user.Host",
    )
    .await?;
    let ours = |user: &str, host: &str| {
        user.starts_with("pelorus_") || user == account::ADMIN || (user == "root" && host == "localhost")
    };
    let (mut made, mut granted) = (Vec::new(), Vec::new());
    for (user, host) in listed.into_iter().filter(|(user, host)| !ours(user, host)) {
        let quoted = Account::new(user.as_str(), host.as_str())?.quoted();
        let create: Vec<(String,)> = rows(session, &format!("SHOW CREATE USER {quoted}")).await?;
        made.extend(create.into_iter().map(|(text,)| Statement::new(Kind::Account, &quoted, text)));
        let grants: Vec<(String,)> = rows(session, &format!("SHOW GRANTS FOR {quoted}")).await?;
        granted.extend(grants.into_iter().map(|(text,)| Statement::new(Kind::Grant, &quoted, text)));
    }
    made.extend(granted);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_out_of_their_backticks() {
        let owned = |(schema, table): (&str, &str)| (schema.to_owned(), table.to_owned());
        for (text, wanted) in [
            ("a.b", Some(("a", "b"))),
            ("`a.x`.`c``d`", Some(("a.x", "c`d"))),
            ("`q`.plain", Some(("q", "plain"))),
            ("nothing", None),
            ("a.", None),
            (".b", None),
        ] {
            assert_eq!(table(text), wanted.map(owned), "{text}");
        }
    }
}
