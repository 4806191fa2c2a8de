//! Follows what the pods of a cluster say, into files: of a container that was replaced twice nothing is left in Kubernetes.

use std::io::Write;
use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::bench::target;

/// Pause before a pod is followed again.
const AGAIN: Duration = Duration::from_millis(300);

/// Length of what lines begin with: `{"timestamp":"2026-11-30T08:35:36.139333Z"`.
const STAMP: usize = 42;

/// Follows these pods into `target/<folder>/<pod>.log` for as long as the result lives.
pub fn pods(cluster: &Cluster, folder: &str, pods: &[String]) -> JoinSet<()> {
    let folder = target(folder);
    let mut all = JoinSet::new();
    for pod in pods {
        let (cluster, pod, path) = (cluster.clone(), pod.clone(), folder.join(format!("{pod}.log")));
        all.spawn(async move {
            let made = path.parent().map(std::fs::create_dir_all);
            let Some(Ok(mut file)) = made.map(|_| std::fs::File::create(&path)) else { return };
            // Whoever follows again hears it all from the beginning of the container.
            let mut last = String::new();
            loop {
                let what = LogParams { follow: true, container: Some("mysql".to_owned()), ..LogParams::default() };
                if let Ok(stream) = cluster.api::<Pod>().log_stream(&pod, &what).await {
                    let mut lines = stream.lines();
                    while let Ok(Some(line)) = lines.try_next().await {
                        let stamp = line.get(..STAMP).unwrap_or_default();
                        if stamp < last.as_str() {
                            continue;
                        }
                        stamp.clone_into(&mut last);
                        let _ = writeln!(file, "{line}");
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    all
}
