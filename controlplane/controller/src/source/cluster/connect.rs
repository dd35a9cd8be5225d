//! From a kubeconfig, or from the pod we run in, to a client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection that is not there after this is tried again.
const CONNECT: Duration = Duration::from_secs(5);
/// A watch is closed by the API server after so many seconds, and goes on where it ended.
pub(super) const WATCH_SECONDS: u32 = 80;
/// A connection that is silent for so long is dead. Bookmarks would come about once a minute, but of a kind in which
/// nothing ever happened none does, and then only the end of its watch is heard.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 20);

/// How we may reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// By a file as `kubectl` has it, and the context of this name, or its current one.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context.
        context: Option<String>,
    },
    /// As the service account of the pod we run in.
    InCluster,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be used.
    #[error("{}: {reason}: name a kubeconfig that works with kubectl by --kubeconfig, and one of its contexts by --context", file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// We run in no pod, or in one without a service account.
    #[error("--in-cluster: {0}: run in a pod with a service account, or use --kubeconfig FILE")]
    InCluster(String),
    /// The client cannot be made.
    #[error("no client for {url}: {reason}: look at the certificates in the kubeconfig")]
    Client {
        /// The API server.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// The client, where it goes, and the namespace that its configuration names. Nothing is sent yet.
///
/// # Errors
/// [`AccessError`], which names the file and the next move.
pub async fn connect(access: &Access) -> Result<(Client, String, String), AccessError> {
    let mut config = match access {
        Access::Kubeconfig { file, context } => from_file(file, context.as_deref()).await?,
        Access::InCluster => {
            Config::incluster().map_err(|error| AccessError::InCluster(chain(&error)))?
        }
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.default_retry = false; // each of our tasks has its own pauses
    let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config)
        .map_err(|error| AccessError::Client { url: url.clone(), reason: chain(&error) })?;
    Ok((client, url, namespace))
}

async fn from_file(file: &Path, context: Option<&str>) -> Result<Config, AccessError> {
    let fail = |reason| AccessError::Kubeconfig { file: file.to_owned(), reason };
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| fail(chain(&error)))?;
    let options =
        KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config.map_err(|error| fail(chain(&error)))
}

/// An error and its causes, none said twice.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
