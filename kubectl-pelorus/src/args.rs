//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::crd::GoDuration;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 gave up waiting (--timeout), 130 interrupted.";

/// Backups and restores of MySQL clusters that Pelorus runs
#[derive(Debug, Parser)]
#[command(name = "kubectl-pelorus", bin_name = "kubectl pelorus", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Command,
}

/// Which Kubernetes, as kubectl has it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Target {
    /// Namespace of the cluster; by default that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig file; by default $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Dump a cluster into its bucket, now
    #[command(after_help = concat!("Example:\n  kubectl pelorus backup shop --name before-the-upgrade\n\n",
        "Ctrl-C leaves the dump: it goes on, and `kubectl pelorus dumps` shows it."))]
    Backup(Backup),
    /// List the dumps of a cluster, and what can be restored
    #[command(after_help = "Example:\n  kubectl pelorus dumps shop")]
    Dumps(Dumps),
    /// Make a new cluster of what is in the archive of another
    #[command(after_help = concat!("Examples:\n  kubectl pelorus restore shop --as shop-copy --at '2026-11-20 10:15:00.25'\n",
        "  kubectl pelorus restore shop --as shop-copy\n\n",
        "The spec is that of CLUSTER, without spec.primary, spec.services, spec.paused and spec.hibernated."))]
    Restore(Restore),
    /// Write a cluster as SQL to standard output
    #[command(after_help = concat!("Example:\n  kubectl pelorus dump shop --schemas app >app.sql\n  mysql --binary-mode <app.sql\n\n",
        "Of one moment, whose GTID set is in a comment. The last line says that it is complete."))]
    Dump(Dump),
}

#[derive(Debug, Args)]
pub struct Backup {
    /// The MySQLCluster
    pub cluster: String,
    /// The MySQLBackupLocation; by default that of the cluster's archive
    #[arg(long, value_name = "NAME")]
    pub location: Option<String>,
    /// Name of the MySQLDump; by default made of the cluster's and the time
    #[arg(long)]
    pub name: Option<String>,
    /// Copy files instead of rows: restores in the time it takes to copy
    #[arg(long, conflicts_with_all = ["schemas", "exclude_tables"])]
    pub physical: bool,
    /// Restore it into a scratch cluster, too, and compare
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub waiting: Waiting,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Dumps {
    /// The MySQLCluster
    pub cluster: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The MySQLCluster whose archive it is
    pub cluster: String,
    /// Name of the new MySQLCluster
    #[arg(long = "as", value_name = "NEW")]
    pub name: String,
    /// Everything that was committed up to this moment: RFC 3339, or YYYY-MM-DD HH:MM[:SS[.ffffff]] of the local time zone.
    /// Without --at and --gtid: the newest
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Exactly these transactions
    #[arg(long, value_name = "SET", conflicts_with = "at")]
    pub gtid: Option<String>,
    /// The MySQLDump to begin with; by default the newest that is within the target
    #[arg(long, value_name = "DUMP")]
    pub from_dump: Option<String>,
    /// Instances of the new cluster; by default as many as the other has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub instances: Option<u32>,
    #[command(flatten)]
    pub waiting: Waiting,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Dump {
    /// The MySQLCluster
    pub cluster: String,
    #[command(flatten)]
    pub selection: Selection,
}

/// What of a cluster.
#[derive(Debug, Args)]
pub struct Selection {
    /// Schemas, with commas between; by default all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub schemas: Vec<String>,
    /// Tables to leave out, as schema.table, with commas between
    #[arg(long, value_name = "TABLES", value_delimiter = ',')]
    pub exclude_tables: Vec<String>,
}

/// Whether it is waited for.
#[derive(Debug, Args)]
pub struct Waiting {
    /// Ask, and do not wait for what comes of it
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Longest wait, like 90s or 2h; by default none
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// What is written.
#[derive(Debug, Args)]
pub struct Output {
    /// Form of the result
    #[arg(short, long = "output", value_name = "FORM", default_value = "table")]
    pub output: Form,
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// For programs
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<GoDuration>().map(GoDuration::as_std).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(std::iter::once("kubectl-pelorus").chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound_and_each_command_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_after_help().is_some_and(|help| help.to_string().contains("Example")), "{command}");
        }
    }

    #[test]
    fn flags_of_kubectl_stand_anywhere() {
        let before = parsed("-n team-a --context prod dumps shop").unwrap().target;
        let after = parsed("dumps shop --namespace team-a --context prod").unwrap().target;
        for target in [before, after] {
            assert_eq!((target.namespace.as_deref(), target.context.as_deref()), (Some("team-a"), Some("prod")));
        }
    }

    #[test]
    fn what_does_not_go_together_is_wrong_usage() {
        for (line, kind) in [
            ("backup", ErrorKind::MissingRequiredArgument),
            ("restore shop", ErrorKind::MissingRequiredArgument),
            ("restore shop --as copy --at now --gtid x:1", ErrorKind::ArgumentConflict),
            ("restore shop --as copy --instances 10", ErrorKind::ValueValidation),
            ("backup shop --no-wait --timeout 5s", ErrorKind::ArgumentConflict),
            ("backup shop --timeout 5", ErrorKind::ValueValidation),
            ("backup shop --physical --schemas a", ErrorKind::ArgumentConflict),
            ("dumps shop -o yaml", ErrorKind::InvalidValue),
            ("dumps shop --help", ErrorKind::DisplayHelp),
        ] {
            assert_eq!(parsed(line).map(|_| ()), Err(kind), "{line}");
        }
        let Command::Backup(backup) =
            parsed("backup shop --schemas a,b --exclude-tables a.x,b.y --timeout 1m30s").unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!(backup.selection.schemas, ["a", "b"]);
        assert_eq!(backup.selection.exclude_tables, ["a.x", "b.y"]);
        assert_eq!(backup.waiting.timeout, Some(Duration::from_secs(90)));
    }
}
