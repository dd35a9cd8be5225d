//! What an operator asks of the controller that leads: a socket in the run directory, for its owner and root.
//!
//! One question a connection, a line of JSON; one answer, a line of JSON. `penstock token` and `penstock rollback` ask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::fleet::{Fleet, FleetEvent};
use super::versions::Version;
use crate::pki::keeper::Keeper;
use crate::pki::{Authority, Token};

/// The socket's name in the run directory.
pub const SOCKET: &str = "boxes.sock";
/// A question is no longer than this.
const MOST_BYTES: u64 = 64 << 10;
/// A question, and its answer, may take so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// A token is good for no longer than this.
const LONGEST_TOKEN: Duration = Duration::from_secs(30 * 86_400);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// A token for a Box to join with.
    Token {
        /// The Box's name.
        name: String,
        /// Where it will find controllers, as `host:port`.
        controllers: Vec<String>,
        /// For how long it is good.
        seconds: u64,
    },
    /// Which versions there are.
    Versions,
    /// A version in force on all boxes: the one before what is written now, if none is named.
    Pin {
        /// Its name, or how it begins.
        version: Option<String>,
    },
    /// What is written now in force again.
    Release,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A token.
    Token(String),
    /// The versions that are kept.
    Versions(Vec<Listed>),
    /// It is done; the version that is pinned now.
    Done(Option<String>),
    /// It is not done, for this reason.
    Refused(String),
}

/// One version, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Listed {
    /// What tells it from others.
    pub version: String,
    /// Since when it is known here.
    pub since: String,
    /// How many objects it has.
    pub objects: usize,
    /// Whether it is what is written now.
    pub current: bool,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// Asks the controller whose run directory this is, and waits for its answer.
///
/// # Errors
/// The kernel's, with the socket; or that what came is no answer.
pub fn ask(run_dir: &Path, ask: &Ask) -> io::Result<Answer> {
    use std::io::{BufRead, Write};
    let path = run_dir.join(SOCKET);
    let named = |error: io::Error| crate::whole_file::named(&path, &error);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(named)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(named)?;
    let mut text = serde_json::to_vec(ask)?;
    text.push(b'\n');
    stream.write_all(&text).map_err(named)?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line).map_err(named)?;
    serde_json::from_str(&line).map_err(|error| named(error.into()))
}

/// A question on its way to the event loop.
#[derive(Debug)]
pub struct Question {
    asked: Asked,
    answer: oneshot::Sender<Result<Found, String>>,
}

#[derive(Debug)]
enum Asked {
    May,
    Versions,
    Find(Option<String>),
    Pin(Option<Arc<Version>>),
}

#[derive(Debug)]
enum Found {
    Nothing,
    Versions(Vec<Listed>),
    Version(Arc<Version>),
}

/// The socket, and what answers there. Dropping it ends it.
pub struct Desk {
    path: PathBuf,
    _task: JoinSet<()>,
}

struct Clerk {
    authority: Authority,
    keeper: Keeper,
    fleet: mpsc::Sender<FleetEvent>,
}

impl Desk {
    /// Answers at the socket in `run_dir`.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(super) fn open(
        run_dir: &Path,
        authority: Authority,
        keeper: Keeper,
        fleet: mpsc::Sender<FleetEvent>,
    ) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        let named = |error: io::Error| crate::whole_file::named(&path, &error);
        // One of before: whoever still listened there would hold the lock of the state directory.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(named)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
        let clerk = Arc::new(Clerk { authority, keeper, fleet });
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let clerk = Arc::clone(&clerk);
                        tokio::spawn(async move {
                            let _ = timeout(PATIENCE, clerk.serve(stream)).await;
                        });
                    }
                    Err(error) => {
                        warn!(%error, "the operators' socket");
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Ok(Self { path, _task: task })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // If it stays, whoever comes next finds nobody there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Clerk {
    async fn serve(&self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(MOST_BYTES));
        if reader.read_line(&mut line).await.is_err() {
            return;
        }
        let answer = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => self.answer(ask).await.unwrap_or_else(Answer::Refused),
            Err(error) => Answer::Refused(format!("the question does not fit: {error}")),
        };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        // Whoever asked may have gone.
        let _ = writer.write_all(&text).await;
    }

    async fn answer(&self, ask: Ask) -> Result<Answer, String> {
        match ask {
            Ask::Token { name, controllers, seconds } => {
                self.ask(Asked::May).await?;
                let lifetime = Duration::from_secs(seconds).min(LONGEST_TOKEN);
                let now = SystemTime::now();
                let token = Token::make(&self.authority, &name, &controllers, now, lifetime);
                let token = token.map_err(|fault| fault.0)?;
                info!(box_name = name, ?lifetime, "token made");
                Ok(Answer::Token(token.to_string()))
            }
            Ask::Versions => match self.ask(Asked::Versions).await? {
                Found::Versions(versions) => Ok(Answer::Versions(versions)),
                _ => Err("no versions".into()),
            },
            Ask::Pin { version } => {
                let Found::Version(version) = self.ask(Asked::Find(version)).await? else {
                    return Err("no version".into());
                };
                let id = version.id.clone();
                // Kept first: whoever leads next does the same.
                self.keeper.pin(Some(id.clone())).await.map_err(|fault| fault.0)?;
                self.ask(Asked::Pin(Some(version))).await?;
                Ok(Answer::Done(Some(id)))
            }
            Ask::Release => {
                self.ask(Asked::May).await?;
                self.keeper.pin(None).await.map_err(|fault| fault.0)?;
                self.ask(Asked::Pin(None)).await?;
                Ok(Answer::Done(None))
            }
        }
    }

    /// Asks the event loop.
    async fn ask(&self, asked: Asked) -> Result<Found, String> {
        let ends = || "the controller ends".to_owned();
        let (answer, found) = oneshot::channel();
        let question = FleetEvent::Ask(Question { asked, answer });
        self.fleet.send(question).await.map_err(|_| ends())?;
        found.await.map_err(|_| ends())?
    }
}

impl Fleet {
    /// Answers a question.
    pub(crate) fn answer(&mut self, question: Question) {
        let Question { asked, answer } = question;
        let found = self.find(asked);
        let _ = answer.send(found); // whoever asked may have gone
    }

    fn find(&mut self, asked: Asked) -> Result<Found, String> {
        if !self.leads() {
            let message = "this controller does not lead: ask the one that the Lease names";
            return Err(message.into());
        }
        let (versions, current) = self.versions();
        match asked {
            Asked::May => Ok(Found::Nothing),
            Asked::Versions => {
                let listed = versions.all().map(|version| Listed {
                    version: version.id.clone(),
                    since: version.since.0.to_string(),
                    objects: version.objects.len(),
                    current: current == Some(&version.id),
                    pinned: self.pinned() == Some(&version.id),
                });
                Ok(Found::Versions(listed.collect()))
            }
            Asked::Find(Some(id)) => {
                let found = versions.find(&id).cloned();
                let none = || format!("there is no version {id}, or more than one: see --list");
                found.map(Found::Version).ok_or_else(none)
            }
            Asked::Find(None) => {
                let mut earlier = versions.all().rev().filter(|it| current != Some(&it.id));
                let found = earlier.next().cloned();
                found.map(Found::Version).ok_or_else(|| "there is no earlier version".to_owned())
            }
            Asked::Pin(version) => {
                self.pin(version);
                Ok(Found::Nothing)
            }
        }
    }
}
