//! Tables in two steps. Pure.
//!
//! Indexes and foreign keys of a table are made when its rows are there: building one from sorted rows costs a fraction of
//! keeping it up row by row. What the clustered index needs, and what an AUTO_INCREMENT column needs, stays with the table.

/// A table in two steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// How it is made, empty.
    pub create: String,
    /// Indexes that are added when its rows are there: a list for each ALTER TABLE.
    pub indexes: Vec<Vec<String>>,
    /// Foreign keys that are added when all tables have their indexes.
    pub foreign: Vec<String>,
}

/// Splits `SHOW CREATE TABLE`, whose lines are one column, index or constraint each. A table that is not understood stays whole.
pub fn split(create: &str) -> Split {
    let whole = || Split { create: create.to_owned(), ..Split::default() };
    let lines = lines(create);
    let Some((head, body)) = lines.split_first() else { return whole() };
    let Some(end) = body.iter().position(|line| line.starts_with(')')) else { return whole() };
    let (parts, tail) = body.split_at(end);
    let parts: Vec<&str> = parts.iter().map(|line| line.trim_end_matches(',')).collect();
    let has_primary = parts.iter().any(|line| line.starts_with("  PRIMARY KEY "));
    // Without a primary key a unique index may be the clustered one; and what counts up has to be the first of some index.
    let counts_up = parts.iter().find(|line| line.starts_with("  `") && line.contains(" AUTO_INCREMENT"));
    let primary = parts.iter().find(|line| line.starts_with("  PRIMARY KEY ")).copied().unwrap_or_default();
    let is_first = |line: &&str| {
        let name = line.trim_start().split_inclusive('`').take(2).collect::<String>();
        primary.starts_with(&format!("  PRIMARY KEY ({name}"))
    };
    if !has_primary || counts_up.as_ref().is_some_and(|line| !is_first(line)) {
        return whole();
    }
    let mut split = Split::default();
    let (mut stays, mut plain) = (Vec::new(), Vec::new());
    for part in parts {
        let added = || format!("ADD {}", part.trim_start());
        if part.starts_with("  KEY ") || part.starts_with("  UNIQUE KEY ") {
            plain.push(added());
        } else if part.starts_with("  FULLTEXT KEY ") || part.starts_with("  SPATIAL KEY ") {
            // One at a time.
            split.indexes.push(vec![added()]);
        } else if part.starts_with("  CONSTRAINT ") && part.contains(" FOREIGN KEY ") {
            split.foreign.push(added());
        } else {
            stays.push(part);
        }
    }
    if !plain.is_empty() {
        split.indexes.insert(0, plain);
    }
    split.create = format!("{head}\n{}\n{}", stays.join(",\n"), tail.join("\n"));
    split
}

/// Lines, but for newlines within names and texts.
fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut begin, mut within, mut is_escaped) = (Vec::new(), 0, None, false);
    for (at, c) in text.char_indices() {
        match within {
            Some('`') | None if c == '\\' => {}
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if c == '\\' => is_escaped = true,
            // A quote that is doubled ends one text and begins another.
            Some(quote) if c == quote => within = None,
            None if matches!(c, '`' | '\'' | '"') => within = Some(c),
            None if c == '\n' => {
                lines.extend(text.get(begin..at));
                begin = at + 1;
            }
            Some(_) | None => {}
        }
    }
    lines.extend(text.get(begin..));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_come_when_the_rows_are_there() {
        let create = "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` int DEFAULT NULL COMMENT 'KEY, (',\n  `g` geometry NOT NULL,\n  \
            PRIMARY KEY (`id`,`a`),\n  UNIQUE KEY `u` (`a`),\n  KEY `k` (`a`,`id`) /*!80000 INVISIBLE */,\n  SPATIAL KEY `s` (`g`),\n  \
            FULLTEXT KEY `f` (`c`),\n  CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `o` (`id`),\n  \
            CONSTRAINT `c` CHECK ((`a` > 0))\n) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY (`id`) */";
        let split = split(create);
        assert_eq!(
            split.create,
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` int DEFAULT NULL COMMENT 'KEY, (',\n  `g` geometry NOT NULL,\n  \
             PRIMARY KEY (`id`,`a`),\n  CONSTRAINT `c` CHECK ((`a` > 0))\n) ENGINE=InnoDB\n/*!50100 PARTITION BY KEY (`id`) */"
        );
        let indexes: Vec<Vec<&str>> =
            split.indexes.iter().map(|adds| adds.iter().map(String::as_str).collect()).collect();
        assert_eq!(
            indexes,
            [
                vec!["ADD UNIQUE KEY `u` (`a`)", "ADD KEY `k` (`a`,`id`) /*!80000 INVISIBLE */"],
                vec!["ADD SPATIAL KEY `s` (`g`)"],
                vec!["ADD FULLTEXT KEY `f` (`c`)"],
            ]
        );
        assert_eq!(split.foreign, ["ADD CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `o` (`id`)"]);
    }

    #[test]
    fn a_newline_within_a_name_or_a_text_ends_no_line() {
        let create = "CREATE TABLE `t\n  KEY ``(` (\n  `a\\\n) ` int DEFAULT '\\'\n''\n' COMMENT 'x\\\\',\n  PRIMARY KEY (`a\\\n) `),\n  KEY `k\n` (`b`)\n) ENGINE=InnoDB";
        let split = split(create);
        assert_eq!(split.create, create.replace(",\n  KEY `k\n` (`b`)", ""));
        assert_eq!(split.indexes, [["ADD KEY `k\n` (`b`)"]]);
    }

    #[test]
    fn a_table_whose_index_is_needed_stays_whole() {
        for create in [
            "CREATE TABLE `t` (\n  `id` int NOT NULL,\n  UNIQUE KEY `u` (`id`)\n) ENGINE=InnoDB",
            "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  `id` int NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`a`,`id`),\n  KEY `k` (`id`)\n) ENGINE=InnoDB",
            "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  `id` int NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`a`),\n  UNIQUE KEY `k` (`id`)\n) ENGINE=InnoDB",
        ] {
            assert_eq!(split(create), Split { create: create.to_owned(), ..Split::default() });
        }
    }
}
