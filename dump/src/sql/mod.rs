//! A dump as one stream of SQL, for people and for other tools: what `mysql` reads.
//!
//! ```text
//! snapshot (one connection, one GTID set) -> definitions
//!   head: settings, the GTID set as a comment
//!   each table: CREATE TABLE, its rows in INSERTs, its indexes
//!   foreign keys -> routines -> views, those that others use first -> triggers -> events
//!   foot: settings as they were, and a line that says that this is all
//! ```
//!
//! A stream without its last line is no dump. No accounts are in it, and nothing is dropped by it.

mod text;
mod values;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use common::gtid::GtidSet;
use common::mysql::wire::Connection;
use common::mysql::{Credentials, Endpoint, Session};
use common::sql::Identifier;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use self::text::{Place, Writer};
use self::values::Form;
use crate::error::{Error, Result};
use crate::make::{Progress, selected};
use crate::manifest::{Kind, Statement};
use crate::schema::{self, Definitions, Selection, Table, rows};
use crate::snapshot::Snapshot;

/// An INSERT that is so long takes no more rows: well within what servers and clients take by default, if no row is larger itself.
const STATEMENT: usize = 1 << 20;

/// What to dump, and from where.
#[derive(Debug)]
pub struct Order<'a> {
    /// The server.
    pub endpoint: &'a Endpoint,
    /// Who reads.
    pub credentials: &'a Credentials,
    /// What of it.
    pub selection: &'a Selection,
}

/// What was dumped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Exactly what the stream holds.
    pub gtid: GtidSet,
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
}

/// Writes the whole stream.
///
/// # Errors
/// Those of the server, and of whoever takes the stream. What was written until then is no dump.
pub async fn write<W: AsyncWrite + Unpin>(order: &Order<'_>, out: &mut W, progress: &Progress) -> Result<Written> {
    let mut snapshot = Snapshot::take(order.endpoint, order.credentials, 1).await?;
    let found = schema::read(&mut snapshot.control, order.selection).await?;
    let charsets = charsets(&mut snapshot.control, order.selection).await?;
    let uses = uses(&mut snapshot.control, order.selection).await?;
    snapshot.release().await?;
    let Snapshot { mut connections, gtid, server, version, taken_at, control } = snapshot;
    drop(control);
    let Definitions { tables, statements, accounts: _ } = found;
    progress.estimate.store(tables.iter().map(|table| table.bytes).sum(), Ordering::Relaxed);
    let connection = connections.first_mut().ok_or_else(|| Error::Answer("no connection".to_owned()))?;

    let mut stream = Stream { out, text: Writer::default() };
    stream.text.head(&version, &server, taken_at, &gtid);
    let place = |statement: &Statement| (statement.schema.clone().unwrap_or_default(), statement.name.clone());
    let with_rows: BTreeMap<Place, &Table> =
        tables.iter().map(|table| ((table.schema.clone(), table.name.clone()), table)).collect();
    let (mut made, mut indexes, mut later) = (Vec::new(), BTreeMap::<Place, Vec<Statement>>::new(), Vec::new());
    for statement in statements {
        match statement.kind {
            Kind::Schema | Kind::Table => made.push(statement),
            Kind::Index => indexes.entry(place(&statement)).or_default().push(statement),
            Kind::ForeignKey | Kind::Routine | Kind::View | Kind::Trigger | Kind::Event => later.push(statement),
            // They are in a list of their own.
            Kind::Account | Kind::Grant => {}
        }
    }
    let mut count = 0;
    for statement in &made {
        stream.text.statement(statement)?;
        if statement.kind == Kind::Table {
            let place = place(statement);
            let table =
                with_rows.get(&place).ok_or_else(|| Error::Broken(format!("no columns of {}", statement.name)))?;
            count += stream.rows(connection, table, &charsets, progress).await?;
            indexes.get(&place).into_iter().flatten().try_for_each(|index| stream.text.statement(index))?;
            stream.pass().await?;
        }
    }
    for statement in &text::in_order(later, &uses) {
        stream.text.statement(statement)?;
    }
    let written = Written { gtid, tables: tables.len(), rows: count };
    stream.text.foot(written.tables, written.rows);
    stream.pass().await?;
    stream.out.flush().await.map_err(Error::io("write the dump"))?;
    Ok(written)
}

/// Character sets of columns, by schema, table and column.
type Charsets = BTreeMap<(String, String, String), String>;

async fn charsets(session: &mut Session, selection: &Selection) -> Result<Charsets> {
    let condition = selection.condition("TABLE_SCHEMA");
    let question = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, CHARACTER_SET_NAME FROM information_schema.COLUMNS \
         WHERE {condition} AND CHARACTER_SET_NAME IS NOT NULL"
    );
    let listed: Vec<(String, String, String, String)> = rows(session, &question).await?;
    Ok(listed.into_iter().map(|(schema, table, column, charset)| ((schema, table, column), charset)).collect())
}

/// Which view uses which table or view.
async fn uses(session: &mut Session, selection: &Selection) -> Result<Vec<(Place, Place)>> {
    let condition = selection.condition("VIEW_SCHEMA");
    let question = format!(
        "SELECT VIEW_SCHEMA, VIEW_NAME, TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEW_TABLE_USAGE WHERE {condition}"
    );
    let listed: Vec<(String, String, String, String)> = rows(session, &question).await?;
    Ok(listed.into_iter().map(|(schema, name, of, used)| ((schema, name), (of, used))).collect())
}

/// Text, and where it goes.
struct Stream<'a, W> {
    out: &'a mut W,
    text: Writer,
}

impl<W: AsyncWrite + Unpin> Stream<'_, W> {
    /// Passes on what there is.
    async fn pass(&mut self) -> Result<()> {
        self.out.write_all(&self.text.bytes).await.map_err(Error::io("write the dump"))?;
        self.text.bytes.clear();
        Ok(())
    }

    /// The rows of a table; how many.
    async fn rows(
        &mut self,
        connection: &mut Connection,
        table: &Table,
        charsets: &Charsets,
        progress: &Progress,
    ) -> Result<u64> {
        let wrong = |source| Error::Rows { table: format!("{}.{}", table.schema, table.name), source };
        let (mut asked, mut names, mut forms) = (Vec::new(), Vec::new(), Vec::new());
        for column in &table.columns {
            let place = (table.schema.clone(), table.name.clone(), column.name.clone());
            let form = Form::of(&column.kind, charsets.get(&place).map(String::as_str));
            asked.push(form.asked(selected(column)?));
            names.push(Identifier::new(column.name.as_str())?.quoted());
            forms.push(form);
        }
        // The schema is in use: its CREATE TABLE came just before.
        let into = Identifier::new(table.name.as_str())?.quoted();
        let begin = format!("INSERT INTO {into} ({}) VALUES\n", names.join(","));
        connection.execute("SAVEPOINT piece").await.map_err(wrong)?;
        connection.query(&format!("SELECT {} FROM {}", asked.join(","), table.quoted()?)).await.map_err(wrong)?;
        let (mut count, mut told, mut statement) = (0, 0, 0);
        while let Some(row) = connection.row().await.map_err(wrong)? {
            let before = self.text.bytes.len();
            let between: &[u8] = if statement == 0 { begin.as_bytes() } else { b",\n" };
            self.text.bytes.extend_from_slice(between);
            if !values::append(row, &forms, &mut self.text.bytes) {
                return Err(Error::Answer(format!("a row of {into} with another number of values")));
            }
            count += 1;
            statement += self.text.bytes.len().saturating_sub(before);
            progress.bytes.fetch_add((self.text.bytes.len() - before) as u64, Ordering::Relaxed);
            if statement >= STATEMENT {
                self.text.bytes.extend_from_slice(b";\n");
                self.pass().await?;
                statement = 0;
                progress.rows.fetch_add(count - told, Ordering::Relaxed);
                told = count;
            }
        }
        if statement > 0 {
            self.text.bytes.extend_from_slice(b";\n");
        }
        progress.rows.fetch_add(count - told, Ordering::Relaxed);
        // Lets go of the table, so that nobody who changes it waits for the rest of the dump.
        connection.execute("ROLLBACK TO SAVEPOINT piece").await.map_err(wrong)?;
        Ok(count)
    }
}
