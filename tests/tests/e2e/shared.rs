//! What clients see of a cluster of three that nobody disturbs.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::names::{self, account};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use tests::dns::{Srv, srv};
use tests::kubectl::exec;
use tests::node::{InNode, client_node};
use tests::sessions::{ANSWER, Target};
use tests::{Cluster, https, plaintext, shared, xprotocol};

/// What an account sees on one instance.
async fn as_account(cluster: &Cluster, pod: &str, name: &str) -> Result<Target> {
    Ok(Target { credentials: cluster.account(name).await?, ..cluster.instance(pod).await? })
}

#[tokio::test]
async fn rows_written_through_the_primary_service_are_read_equal_from_each_instance() -> Result<()> {
    shared::run(async |cluster| {
        let rows: Vec<String> = (0..500).map(|n| format!("({n}, UUID())")).collect();
        cluster
            .write(&[
                "CREATE DATABASE IF NOT EXISTS equal_rows",
                "CREATE TABLE IF NOT EXISTS equal_rows.t (id INT PRIMARY KEY, v CHAR(36))",
                "DELETE FROM equal_rows.t",
                &format!("INSERT INTO equal_rows.t VALUES {}", rows.join(",")),
            ])
            .await?;
        let read = "SELECT COUNT(*), CAST(COALESCE(BIT_XOR(CRC32(CONCAT(id, v))), 0) AS UNSIGNED) FROM equal_rows.t";
        let mut seen = BTreeSet::new();
        for pod in cluster.wait_caught_up(Duration::from_secs(30)).await? {
            let rows: Vec<(i64, u64)> = cluster.rows(&pod, read).await?;
            seen.extend(rows);
        }
        ensure!(seen.len() == 1 && seen.iter().all(|(count, _)| *count == 500), "instances differ: {seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_replicas_service_leads_to_replicas_only_and_they_refuse_writes() -> Result<()> {
    shared::run(async |cluster| {
        let primary = cluster.primary().await?;
        let target = cluster.service(&names::object::replicas_service(&cluster.name)).await?;
        let task = move || async move {
            let mut hosts = BTreeSet::new();
            for _ in 0..20 {
                let mut session = target.connect().await?;
                let host: Option<(String,)> = session.first("SELECT @@GLOBAL.report_host", ANSWER).await?;
                hosts.extend(host.map(|(host,)| host));
                let refused = session.exec("CREATE DATABASE never_on_a_replica", ANSWER).await;
                let code = refused.err().and_then(|error| error.code());
                ensure!(code == Some(1290), "a write on a replica ended with {code:?}");
            }
            Ok(hosts)
        };
        let hosts: BTreeSet<String> = InNode::spawn(client_node(&cluster.harness), task).join().await?;
        let starts_with = |pod: &str| hosts.iter().any(|host| host.split('.').next() == Some(pod));
        ensure!(!starts_with(&primary), "the replicas Service led to the primary {primary}: {hosts:?}");
        let replicas = cluster.replicas().await?;
        ensure!(replicas.iter().all(|pod| starts_with(pod)), "{replicas:?} should all be reached: {hosts:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_primary_service_has_exactly_one_address() -> Result<()> {
    shared::run(async |cluster| {
        let service = names::object::primary_service(&cluster.name);
        let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = cluster.api::<EndpointSlice>().list(&selector).await?;
        let addresses: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter())
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect();
        let primary = cluster.pod_ip(&cluster.primary().await?).await?;
        ensure!(addresses == [primary.clone()], "{service} has {addresses:?}, the primary is {primary}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn replication_uses_tls_and_checks_the_source() -> Result<()> {
    shared::run(async |cluster| {
        for pod in cluster.replicas().await? {
            let mut session = as_account(cluster, &pod, account::MONITOR).await?.connect().await?;
            let sql = "SELECT SSL_ALLOWED, SSL_VERIFY_SERVER_CERTIFICATE \
                       FROM performance_schema.replication_connection_configuration WHERE HOST <> ''";
            let channels: Vec<(String, String)> = session.rows(sql, ANSWER).await?;
            ensure!(
                channels == [("YES".to_owned(), "YES".to_owned())],
                "{pod}: TLS and its verification: {channels:?}"
            );
        }
        let primary = cluster.primary().await?;
        let mut session = as_account(cluster, &primary, account::MONITOR).await?.connect().await?;
        let sql = "SELECT CONNECTION_TYPE, PROCESSLIST_USER FROM performance_schema.threads \
                   WHERE PROCESSLIST_COMMAND LIKE 'Binlog Dump%'";
        let dumps: Vec<(Option<String>, Option<String>)> = session.rows(sql, ANSWER).await?;
        ensure!(dumps.len() == 2, "two replicas read the binlog: {dumps:?}");
        ensure!(dumps.iter().all(|(kind, _)| kind.as_deref() == Some("SSL/TLS")), "without TLS: {dumps:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plaintext_is_refused_on_the_classic_port_for_every_account() -> Result<()> {
    shared::run(async |cluster| {
        let mut accounts = vec![cluster.admin().await?];
        for name in [account::replication(0), account::replication(1), account::replication(2)] {
            accounts.push(cluster.account(&name).await?);
        }
        for name in [account::CLONE, account::BACKUP, account::SHIPPER, account::USERS, account::MONITOR] {
            accounts.push(cluster.account(name).await?);
        }
        for pod in cluster.pods().await?.into_keys() {
            let ip = cluster.pod_ip(&pod).await?;
            for credentials in &accounts {
                let refused = plaintext::classic(&ip, credentials).await?;
                let by_the_server = matches!(refused, Some(mysql_async::Error::Server(_)));
                ensure!(by_the_server, "{} on {pod} without TLS: {refused:?}", credentials.user);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plaintext_is_refused_on_the_x_protocol_port() -> Result<()> {
    shared::run(async |cluster| {
        let (authorities, admin) = (cluster.authorities().await?, cluster.admin().await?);
        let (user, password) = (admin.user.as_str(), admin.password.expose());
        for pod in cluster.pods().await?.into_keys() {
            let ip = cluster.pod_ip(&pod).await?;
            let host = names::instance_host(&cluster.namespace, &cluster.name, &pod);
            let connect = async || xprotocol::connect(&ip, names::PORT_MYSQLX).await;
            // A login over TLS puts the account into the server's cache, from where a login without a password's
            // transmission works: over TLS, as is shown, and so nothing but the missing TLS is refused after that.
            let answer = connect().await?.secure(&authorities, &host).await?.authenticate_plain(user, password).await?;
            ensure!(answer.is_authenticated(), "{pod} over TLS: {}", answer.text());
            let answer =
                connect().await?.secure(&authorities, &host).await?.authenticate_memory(user, password).await?;
            ensure!(answer.is_authenticated(), "{pod} over TLS, from the cache: {}", answer.text());
            let refused = connect().await?.authenticate_plain(user, password).await?;
            ensure!(refused.is_error(), "{pod} took a password without TLS");
            let refused = connect().await?.authenticate_memory(user, password).await?;
            ensure!(refused.is_error(), "{pod} let in without TLS");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plaintext_is_refused_on_the_instance_api() -> Result<()> {
    shared::run(async |cluster| {
        for pod in cluster.pods().await?.into_keys() {
            let answer = plaintext::http(&cluster.pod_ip(&pod).await?, names::PORT_INSTANCE_API).await?;
            ensure!(
                !answer.starts_with(b"HTTP/"),
                "{pod} answers HTTP without TLS: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_instance_api_obeys_nobody_without_a_certificate_and_shows_metrics_to_all() -> Result<()> {
    shared::run(async |cluster| {
        let authorities = cluster.authorities().await?;
        for pod in cluster.pods().await?.into_keys() {
            let ip = cluster.pod_ip(&pod).await?;
            let host = names::instance_host(&cluster.namespace, &cluster.name, &pod);
            let get = async |path: &str| https::get(&ip, names::PORT_INSTANCE_API, &host, &authorities, path).await;
            for path in ["/v1/state", "/v1/stream"] {
                let status = get(path).await.map(|(status, _)| status);
                // Hanging up in the handshake is a refusal, too.
                let refused = status.as_ref().map_or(true, |status| matches!(status, 401 | 403));
                ensure!(refused, "{pod} {path} without a certificate: {status:?}");
            }
            for path in ["/livez", "/readyz", "/metrics"] {
                let (status, body) = get(path).await?;
                ensure!(status == 200, "{pod} {path}: {status} {body}");
                ensure!(path != "/metrics" || body.contains("pelorus_"), "{pod} has no metrics of its own: {body}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn srv_records_name_every_instance() -> Result<()> {
    shared::run(async |cluster| {
        for (service, port) in [("_mysql", names::PORT_MYSQL), ("_mysqlx", names::PORT_MYSQLX)] {
            let domain = format!("{}.{}.svc.cluster.local", cluster.name, cluster.namespace);
            let answer = srv(&cluster.harness, &format!("{service}._tcp.{domain}")).await?;
            let expected: BTreeSet<Srv> =
                (0..3).map(|n| Srv { target: format!("{}-{n}.{domain}", cluster.name), port }).collect();
            ensure!(answer == expected, "{service}: {answer:?}, expected {expected:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mysqlx_answers_over_tls() -> Result<()> {
    shared::run(async |cluster| {
        let (authorities, admin) = (cluster.authorities().await?, cluster.admin().await?);
        let service = names::object::primary_service(&cluster.name);
        let ip = cluster.cluster_ip(&service).await?;
        let host = format!("{service}.{}.svc", cluster.namespace);
        let task = move || async move {
            let mut session = xprotocol::connect(&ip, names::PORT_MYSQLX).await?;
            let capabilities = session.capabilities().await?.text();
            ensure!(capabilities.contains("tls"), "no TLS among the capabilities: {capabilities:?}");
            let mut session = session.secure(&authorities, &host).await?;
            let answer = session.authenticate_plain(&admin.user, admin.password.expose()).await?;
            ensure!(answer.is_authenticated(), "the owner of the data is not let in: {}", answer.text());
            Ok(())
        };
        InNode::spawn(client_node(&cluster.harness), task).join().await
    })
    .await
}

/// Two sessions through the primary Service, a table with one row, and the rows that the first sees before and after the
/// second's insert, uncommitted and committed.
async fn counts(cluster: &Cluster, level: &'static str) -> Result<[i64; 3]> {
    let schema = format!("isolation_{}", level.to_lowercase().replace(' ', "_"));
    cluster
        .write(&[
            &format!("CREATE DATABASE IF NOT EXISTS {schema}"),
            &format!("CREATE TABLE IF NOT EXISTS {schema}.t (id INT PRIMARY KEY)"),
            &format!("DELETE FROM {schema}.t"),
            &format!("INSERT INTO {schema}.t VALUES (1)"),
        ])
        .await?;
    let target = cluster.primary_service().await?;
    let task = move || async move {
        let (mut reader, mut writer) = (target.connect().await?, target.connect().await?);
        let count = format!("SELECT COUNT(*) FROM {schema}.t");
        let first = async |session: &mut common::mysql::Session| -> Result<i64> {
            let row: Option<(i64,)> = session.first(&count, ANSWER).await?;
            row.map(|(count,)| count).context("no count")
        };
        reader.exec(&format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}"), ANSWER).await?;
        reader.exec("BEGIN", ANSWER).await?;
        let before = first(&mut reader).await?;
        writer.exec("SET SESSION innodb_lock_wait_timeout = 1", ANSWER).await?;
        writer.exec("BEGIN", ANSWER).await?;
        let inserted = writer.exec(&format!("INSERT INTO {schema}.t VALUES (2)"), ANSWER).await;
        if inserted.as_ref().is_err_and(|error| error.code() == Some(1205)) {
            reader.exec("COMMIT", ANSWER).await?;
            return Ok([before, -1, -1]);
        }
        inserted?;
        let uncommitted = first(&mut reader).await?;
        writer.exec("COMMIT", ANSWER).await?;
        let committed = first(&mut reader).await?;
        // The reader writes, too: every level takes writes through the primary Service.
        reader.exec(&format!("INSERT INTO {schema}.t VALUES (3)"), ANSWER).await?;
        reader.exec("COMMIT", ANSWER).await?;
        Ok([before, uncommitted, committed])
    };
    InNode::spawn(client_node(&cluster.harness), task).join().await
}

#[tokio::test]
async fn each_isolation_level_works_through_the_primary_service() -> Result<()> {
    shared::run(async |cluster| {
        for (level, expected) in [
            ("READ UNCOMMITTED", [1, 2, 2]),
            ("READ COMMITTED", [1, 1, 2]),
            ("REPEATABLE READ", [1, 1, 1]),
            // The reader's locks keep the writer out.
            ("SERIALIZABLE", [1, -1, -1]),
        ] {
            let seen = counts(cluster, level).await.with_context(|| level.to_owned())?;
            ensure!(seen == expected, "{level}: {seen:?}, expected {expected:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn temporary_tables_work_inside_a_transaction_through_the_primary_service() -> Result<()> {
    shared::run(async |cluster| {
        cluster
            .write(&[
                "CREATE DATABASE IF NOT EXISTS temporary",
                "CREATE TABLE IF NOT EXISTS temporary.t (id INT PRIMARY KEY)",
                "DELETE FROM temporary.t",
                "BEGIN",
                "INSERT INTO temporary.t VALUES (1)",
                "CREATE TEMPORARY TABLE temporary.scratch (id INT)",
                "INSERT INTO temporary.scratch VALUES (2), (3)",
                "INSERT INTO temporary.t SELECT id FROM temporary.scratch",
                "DROP TEMPORARY TABLE temporary.scratch",
                "COMMIT",
            ])
            .await?;
        for pod in cluster.wait_caught_up(Duration::from_secs(30)).await? {
            let count: i64 = cluster.value(&pod, "SELECT COUNT(*) FROM temporary.t").await?;
            ensure!(count == 3, "{pod} has {count} rows");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mysql_pods_have_no_api_token_and_no_privileges() -> Result<()> {
    shared::run(async |cluster| {
        for (name, pod) in cluster.pods().await? {
            let spec = pod.spec.context("a pod without a spec")?;
            ensure!(spec.automount_service_account_token == Some(false), "{name} mounts an API token");
            let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
            let tokens = projected.flat_map(|volume| volume.sources.iter().flatten());
            let tokens = tokens.filter(|source| source.service_account_token.is_some()).count();
            ensure!(tokens == 0, "{name} projects {tokens} API tokens");
            let script = "test ! -e /var/run/secrets/kubernetes.io && id -u && cat /proc/1/status";
            let said = exec(&cluster.harness, &cluster.namespace, &name, &["/bin/bash", "-c", script]).await?;
            let line =
                |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).map(str::to_owned);
            ensure!(said.starts_with("999\n"), "{name} does not run as 999: {said}");
            for (key, value) in [("NoNewPrivs:", "1"), ("CapEff:", "0000000000000000"), ("Seccomp:", "2")] {
                ensure!(line(key).as_deref() == Some(value), "{name}: {key} {:?}, expected {value}", line(key));
            }
        }
        Ok(())
    })
    .await
}
