//! The text around the rows. Pure.
//!
//! A name can hold anything, so none stands in a comment: a client takes what follows a newline in it for a command of its own.

use std::collections::BTreeSet;
use std::io::Write;

use common::gtid::GtidSet;
use common::sql::{Identifier, quote_str};
use jiff::Timestamp;

use crate::error::Result;
use crate::manifest::{Kind, Statement};

/// Schema and name.
pub type Place = (String, String);

/// Of every statement that says nothing else: no value is made of a zero.
const MODE: &str = "NO_AUTO_VALUE_ON_ZERO";
/// Settings of the session that loads, each with what it is while it does.
const SETTINGS: [(&str, &str); 7] = [
    ("CHARACTER_SET_CLIENT", "utf8mb4"),
    ("CHARACTER_SET_RESULTS", "utf8mb4"),
    ("COLLATION_CONNECTION", "utf8mb4_0900_ai_ci"),
    ("TIME_ZONE", "'+00:00'"),
    ("UNIQUE_CHECKS", "0"),
    ("FOREIGN_KEY_CHECKS", "0"),
    ("SQL_MODE", "'NO_AUTO_VALUE_ON_ZERO'"),
];

/// Text as it grows.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was not passed on yet.
    pub bytes: Vec<u8>,
    schema: Option<String>,
}

impl Writer {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // A vector takes everything.
        let _ = self.bytes.write_fmt(text);
        self.bytes.push(b'\n');
    }

    /// What stands before everything.
    pub fn head(&mut self, version: &str, server: &str, taken_at: u64, gtid: &GtidSet) {
        let moment = i64::try_from(taken_at).ok().and_then(|at| Timestamp::from_microsecond(at).ok());
        let moment = moment.map_or_else(String::new, |at| at.to_string());
        self.line(format_args!("-- MySQL {version}, server {server}, dumped by Pelorus at {moment}"));
        self.line(format_args!("-- The last line says that it is complete. Exactly these transactions are in it:"));
        self.line(format_args!("/* SET @@GLOBAL.GTID_PURGED='+{gtid}'; */\n"));
        for (name, value) in SETTINGS {
            self.line(format_args!("SET @OLD_{name}=@@SESSION.{name}, SESSION {name}={value};"));
        }
    }

    /// What stands after everything.
    pub fn foot(&mut self, tables: usize, rows: u64) {
        self.line(format_args!(""));
        for (name, _) in SETTINGS {
            self.line(format_args!("SET SESSION {name}=@OLD_{name};"));
        }
        self.line(format_args!("-- Complete: {tables} tables, {rows} rows"));
    }

    /// A definition, with what it needs around it.
    ///
    /// # Errors
    /// A name that has no place in SQL.
    pub fn statement(&mut self, statement: &Statement) -> Result<()> {
        let Statement { kind, schema, sql_mode, time_zone, collation, text, name: _ } = statement;
        if let Some(schema) = schema.as_ref().filter(|schema| self.schema.as_ref() != Some(*schema)) {
            self.line(format_args!("\nUSE {};", Identifier::new(schema.as_str())?.quoted()));
            self.schema = Some(schema.clone());
        }
        match kind {
            // Where it is already, what comes goes into it.
            Kind::Schema => {
                let text = text.replacen("CREATE DATABASE ", "CREATE DATABASE /*!32312 IF NOT EXISTS*/ ", 1);
                self.line(format_args!("\n{text};"));
            }
            Kind::Table | Kind::Index | Kind::ForeignKey | Kind::Account | Kind::Grant => {
                self.line(format_args!("\n{text};"));
            }
            Kind::Routine | Kind::View | Kind::Trigger | Kind::Event => {
                let mode = quote_str(sql_mode.as_deref().unwrap_or(MODE), false);
                let zone = quote_str(time_zone.as_deref().unwrap_or("+00:00"), false);
                let collation = quote_str(collation.as_deref().unwrap_or("utf8mb4_0900_ai_ci"), false);
                let set = format!("SET SESSION sql_mode={mode}, time_zone={zone}, collation_connection={collation};");
                let end = delimiter(text);
                // On a line of its own: the text may end with a comment.
                self.line(format_args!("\n{set}\nDELIMITER {end}\n{text}\n{end}\nDELIMITER ;"));
                self.line(format_args!("SET SESSION sql_mode='{MODE}', time_zone='+00:00';"));
            }
        }
        Ok(())
    }
}

/// What ends a statement that has semicolons, and stands nowhere in it.
fn delimiter(text: &str) -> String {
    let mut end = ";;".to_owned();
    while text.contains(&end) {
        end.push(';');
    }
    end
}

/// Definitions in the order in which a server takes them: what a view uses is there before it.
pub fn in_order(statements: Vec<Statement>, uses: &[(Place, Place)]) -> Vec<Statement> {
    let (views, others): (Vec<Statement>, Vec<Statement>) =
        statements.into_iter().partition(|statement| statement.kind == Kind::View);
    let place = |view: &Statement| (view.schema.clone().unwrap_or_default(), view.name.clone());
    let (mut left, mut ordered) = (views, Vec::new());
    while !left.is_empty() {
        let missing: BTreeSet<Place> = left.iter().map(place).collect();
        let waits = |view: &Statement| {
            let own = place(view);
            uses.iter().any(|(user, used)| *user == own && *used != own && missing.contains(used))
        };
        let (waiting, ready): (Vec<Statement>, Vec<Statement>) = left.into_iter().partition(waits);
        if ready.is_empty() {
            // No server has views in a ring: the order is as good as any.
            ordered.extend(waiting);
            break;
        }
        ordered.extend(ready);
        left = waiting;
    }
    let (before, after): (Vec<Statement>, Vec<Statement>) =
        others.into_iter().partition(|statement| !matches!(statement.kind, Kind::Trigger | Kind::Event));
    before.into_iter().chain(ordered).chain(after).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(kind: Kind, name: &str, text: &str) -> Statement {
        Statement { schema: Some("s".to_owned()), ..Statement::new(kind, name, text) }
    }

    #[test]
    fn views_come_after_what_they_use() {
        let uses = [("a", "m"), ("m", "z"), ("a", "t"), ("b", "a")]
            .map(|(user, used)| (("s".to_owned(), user.to_owned()), ("s".to_owned(), used.to_owned())));
        let statements = [
            (Kind::ForeignKey, "t"),
            (Kind::Routine, "f"),
            (Kind::View, "a"),
            (Kind::View, "b"),
            (Kind::View, "m"),
            (Kind::View, "z"),
            (Kind::Trigger, "g"),
            (Kind::Event, "e"),
        ];
        let statements = statements.map(|(kind, name)| of(kind, name, "")).to_vec();
        let names = |uses: &[(Place, Place)]| -> String {
            in_order(statements.clone(), uses).into_iter().map(|statement| statement.name).collect()
        };
        assert_eq!(names(&uses), "tfzmabge");
        let ring = [("a", "b"), ("b", "a")]
            .map(|(one, other)| (("s".to_owned(), one.to_owned()), ("s".to_owned(), other.to_owned())));
        assert_eq!(names(&ring), "tfmzabge");
    }

    #[test]
    fn no_text_holds_its_delimiter() {
        for (text, end) in [("BEGIN a; b; END", ";;"), ("SELECT ';;'", ";;;"), ("';;;'", ";;;;")] {
            assert_eq!(delimiter(text), end);
        }
    }

    #[test]
    fn a_definition_has_what_it_needs_around_it() {
        let mut writer = Writer::default();
        writer.statement(&Statement::new(Kind::Schema, "s", "CREATE DATABASE `s`")).unwrap();
        writer.statement(&of(Kind::Table, "t", "CREATE TABLE `t` (a INT)")).unwrap();
        writer.statement(&of(Kind::Index, "t", "ALTER TABLE `t` ADD KEY (a)")).unwrap();
        let routine = Statement {
            sql_mode: Some("ANSI_QUOTES".to_owned()),
            time_zone: Some("SYSTEM".to_owned()),
            ..of(Kind::Routine, "p", "CREATE PROCEDURE p() SELECT 1 -- it's")
        };
        writer.statement(&routine).unwrap();
        let wanted = "\nCREATE DATABASE /*!32312 IF NOT EXISTS*/ `s`;\n\nUSE `s`;\n\nCREATE TABLE `t` (a INT);\n\n\
            ALTER TABLE `t` ADD KEY (a);\n\nSET SESSION sql_mode='ANSI_QUOTES', time_zone='SYSTEM', collation_connection='utf8mb4_0900_ai_ci';\n\
            DELIMITER ;;\nCREATE PROCEDURE p() SELECT 1 -- it's\n;;\nDELIMITER ;\n\
            SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', time_zone='+00:00';\n";
        assert_eq!(String::from_utf8(writer.bytes).unwrap(), wanted);
    }

    #[test]
    fn the_head_and_the_foot_say_what_it_is() {
        let mut writer = Writer::default();
        writer.head(
            "9.7.4",
            "uuid",
            1_795_169_700_250_001,
            &"07070707-0707-0707-0707-070707070707:1-5".parse().unwrap(),
        );
        writer.foot(2, 7);
        let text = String::from_utf8(writer.bytes).unwrap();
        assert!(text.contains("at 2026-11-20T10:15:00.250001Z\n"), "{text}");
        assert!(
            text.contains("\n/* SET @@GLOBAL.GTID_PURGED='+07070707-0707-0707-0707-070707070707:1-5'; */\n"),
            "{text}"
        );
        assert!(
            text.contains("\nSET @OLD_SQL_MODE=@@SESSION.SQL_MODE, SESSION SQL_MODE='NO_AUTO_VALUE_ON_ZERO';\n"),
            "{text}"
        );
        assert!(text.ends_with("SET SESSION SQL_MODE=@OLD_SQL_MODE;\n-- Complete: 2 tables, 7 rows\n"), "{text}");
    }
}
