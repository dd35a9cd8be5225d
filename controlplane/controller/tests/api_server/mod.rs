//! An API server in memory, under a real client: it stores, lists, watches and patches, and fails as it is told.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

mod rights;

pub use rights::Rights;

type Key = (String, String, String);

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: String,
    pub at: Instant,
}

#[derive(Default)]
struct Inner {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// What watches are told: version, plural, type, object.
    log: Vec<(u64, String, &'static str, Value)>,
    requests: Vec<Seen>,
    /// The next answers to requests about a plural, in place of the right ones; 0 breaks the connection.
    faults: BTreeMap<String, VecDeque<u16>>,
    /// The next answers to patches of a plural.
    patch_faults: BTreeMap<String, VecDeque<u16>>,
    /// The Retry-After of 429.
    retry_after: Option<u32>,
    /// Watches are closed as soon as they have said what there is.
    hasty: bool,
    /// What our user may do; everything if nothing is said.
    rights: Option<Rights>,
    unknown: BTreeSet<String>,
    no_streaming: bool,
    /// A watch that is too old hears of it by an event, not by the answer.
    expires_by_event: bool,
    /// Watches of an older version are refused with 410.
    oldest: u64,
    gone: bool,
}

#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Mutex<Inner>>,
    /// What watches wait for: the version, and how often all of them were closed.
    changed: watch::Sender<(u64, u64)>,
}

impl ApiServer {
    pub fn new() -> Self {
        Self { inner: Arc::default(), changed: watch::channel((0, 0)).0 }
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().serve(request));
        Client::new(service, "default")
    }

    /// Creates or replaces an object, as `kubectl` would: with a generation, a uid and a version.
    pub fn put(&self, plural: &str, object: Value) {
        self.change(|inner| inner.put(plural, object));
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|inner| {
            let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
            inner.remove(&key);
        });
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.inner.lock().unwrap().objects.get(&key).cloned()
    }

    /// The next requests about `plural` are answered so.
    pub fn fail(&self, plural: &str, codes: &[u16]) {
        self.change(|inner| inner.faults.entry(plural.into()).or_default().extend(codes));
    }

    /// The next patches of objects of `plural` are answered so.
    pub fn fail_patches(&self, plural: &str, codes: &[u16]) {
        self.change(|inner| inner.patch_faults.entry(plural.into()).or_default().extend(codes));
    }

    /// What is answered by 429 asks for so many seconds.
    pub fn retry_after(&self, seconds: u32) {
        self.change(|inner| inner.retry_after = Some(seconds));
    }

    /// Whether watches are closed as soon as they have said what there is.
    pub fn is_hasty(&self, hasty: bool) {
        self.change(|inner| inner.hasty = hasty);
        self.close_watches();
    }

    /// Our user may do this, and no more.
    pub fn permit(&self, rights: Rights) {
        self.change(|inner| inner.rights = Some(rights));
    }

    /// What was granted and not used, and what was asked for and not granted.
    pub fn rights(&self) -> Rights {
        self.inner.lock().unwrap().rights.clone().unwrap_or_default()
    }

    /// As [`Self::put`], but watches are told this version, whatever it was before.
    pub fn put_as(&self, plural: &str, object: Value, version: u64) {
        self.change(|inner| {
            inner.put(plural, object);
            if let Some((_, _, _, told)) = inner.log.last_mut() {
                told["metadata"]["resourceVersion"] = version.to_string().into();
            }
        });
    }

    pub fn uninstall(&self, plural: &str, is_unknown: bool) {
        self.change(|inner| match is_unknown {
            true => drop(inner.unknown.insert(plural.to_owned())),
            false => drop(inner.unknown.remove(plural)),
        });
    }

    pub fn no_streaming(&self) {
        self.change(|inner| inner.no_streaming = true);
    }

    /// Nobody answers any more, or again.
    pub fn is_gone(&self, gone: bool) {
        self.change(|inner| inner.gone = gone);
        if gone {
            self.close_watches();
        }
    }

    pub fn close_watches(&self) {
        self.changed.send_modify(|(_, closed)| *closed += 1);
    }

    /// Forgets the past: a watch that comes back is too old.
    pub fn compact(&self, by_event: bool) {
        self.change(|inner| {
            inner.expires_by_event = by_event;
            inner.version += 1;
            inner.oldest = inner.version;
            inner.log.clear();
        });
    }

    /// Says that time went by, and nothing else.
    pub fn bookmark(&self, plural: &str) {
        self.change(|inner| {
            inner.version += 1;
            let mark = json!({"kind": "K", "apiVersion": "v1", "metadata": {"resourceVersion": inner.version.to_string()}});
            inner.log.push((inner.version, plural.to_owned(), "BOOKMARK", mark));
        });
    }

    /// The patches of objects of `plural`.
    pub fn writes(&self, plural: &str) -> Vec<Seen> {
        self.requests(plural, &Method::PATCH)
    }

    /// The requests of one method about objects of `plural`.
    pub fn requests(&self, plural: &str, method: &Method) -> Vec<Seen> {
        let inner = self.inner.lock().unwrap();
        let about = format!("/{plural}/");
        let ours = inner.requests.iter().filter(|r| r.method == method && r.path.contains(&about));
        ours.cloned().collect()
    }

    /// Every request about `plural`: lists, watches and single objects.
    pub fn asked(&self, plural: &str) -> Vec<Seen> {
        let inner = self.inner.lock().unwrap();
        let ours = inner.requests.iter().filter(|seen| Target::of(&seen.path).plural == plural);
        ours.cloned().collect()
    }

    /// How many requests came in.
    pub fn requests_seen(&self) -> usize {
        self.inner.lock().unwrap().requests.len()
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock().unwrap();
        change(&mut inner);
        let version = inner.version;
        self.changed.send_modify(|(now, _)| *now = version);
    }

    async fn serve(
        self,
        request: Request<Body>,
    ) -> Result<Response<Channel<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let (path, query) =
            (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let target = Target::of(&path);
        let seen = Seen {
            method: head.method.clone(),
            path,
            query: query.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
            at: Instant::now(),
        };
        let received = self.inner.lock().unwrap().receive(&target, &seen);
        let fault = match received {
            Ok(fault) => fault,
            Err(None) => return Err(std::io::Error::other("connection refused")),
            Err(Some(refusal)) => return Ok(answer(403, &forbidden(&refusal)).await),
        };
        match fault {
            Some(0) => return Err(std::io::Error::other("connection reset")),
            Some(code) => {
                let mut answer = answer(code, &status(code)).await;
                let after = self.inner.lock().unwrap().retry_after.filter(|_| code == 429);
                if let Some(after) = after {
                    answer.headers_mut().insert("retry-after", after.into());
                }
                return Ok(answer);
            }
            None => {}
        }
        if query.contains("watch=true") {
            return Ok(self.watch(&target.plural, &query).await);
        }
        let is_apply = head.headers.get("content-type").is_some_and(|type_| {
            type_.to_str().unwrap_or_default().starts_with("application/apply-patch")
        });
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut told = (404, status(404));
        self.change(|inner| {
            told = match is_apply && target.subresource.is_none() {
                true => inner.apply(&target, &body),
                false => inner.one(&head.method, &target, body),
            }
        });
        Ok(answer(told.0, &told.1).await)
    }

    async fn watch(self, plural: &str, query: &str) -> Response<Channel<Bytes>> {
        let initial = query.contains("sendInitialEvents=true");
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let since: u64 = since.and_then(|version| version.parse().ok()).unwrap_or_default();
        let (refused, first, version) = {
            let inner = self.inner.lock().unwrap();
            let expired = !initial && since < inner.oldest;
            let by_event = expired && inner.expires_by_event;
            let refused = match () {
                () if initial && inner.no_streaming => Some(422),
                () if by_event => Some(200),
                () if expired => Some(410),
                () => None,
            };
            let first = if initial { inner.first(plural) } else { Vec::new() };
            (refused, first, if initial { inner.version } else { since })
        };
        if let Some(code) = refused {
            let event = json!({"type": "ERROR", "object": status(410)});
            let says = if code == 200 { event } else { status(code) };
            return answer(code, &says).await;
        }
        let (sender, body) = Channel::new(16);
        let changed = self.changed.subscribe();
        tokio::spawn(stream(self.inner, changed, plural.to_owned(), version, first, sender));
        Response::builder().status(200).body(body).unwrap()
    }
}

/// Sends what happens to `plural` until the watch is closed.
async fn stream(
    inner: Arc<Mutex<Inner>>,
    mut changed: watch::Receiver<(u64, u64)>,
    plural: String,
    mut version: u64,
    first: Vec<Value>,
    mut sender: Sender<Bytes>,
) {
    let closed = changed.borrow_and_update().1;
    let mut lines = first;
    let mut turns = 0;
    loop {
        turns += 1;
        for line in lines {
            if sender.send_data(Bytes::from(format!("{line}\n"))).await.is_err() {
                return;
            }
        }
        {
            let inner = inner.lock().unwrap();
            let new = inner.log.iter().filter(|(at, of, ..)| *at > version && *of == plural);
            lines =
                new.map(|(_, _, type_, object)| json!({"type": type_, "object": object})).collect();
            version = inner.version.max(version);
            if inner.hasty && lines.is_empty() && turns > 1 {
                return;
            }
        }
        if lines.is_empty() && (changed.changed().await.is_err() || changed.borrow().1 != closed) {
            return;
        }
    }
}

struct Target {
    plural: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn of(path: &str) -> Self {
        let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
        let skip = if path.starts_with("/api/") { 2 } else { 3 };
        for _ in 0..skip {
            parts.next();
        }
        let mut rest: Vec<String> = parts.collect();
        let namespaced = rest.len() > 2 && rest[0] == "namespaces";
        let namespace = if namespaced { rest.drain(..2).nth(1).unwrap() } else { String::new() };
        let mut rest = rest.into_iter();
        Self {
            plural: rest.next().unwrap_or_default(),
            namespace,
            name: rest.next(),
            subresource: rest.next(),
        }
    }
}

impl Inner {
    fn put(&mut self, plural: &str, mut object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let key = (plural.to_owned(), text(&metadata["namespace"]), text(&metadata["name"]));
        let before = self.objects.get(&key).cloned();
        self.version += 1;
        let type_ = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let before = before.unwrap_or_else(
            || json!({"metadata": {"generation": 0, "uid": format!("u{}", self.version)}}),
        );
        let generation = before["metadata"]["generation"].as_i64().unwrap_or_default();
        let same = before["spec"] == object["spec"] && generation > 0;
        object["metadata"]["generation"] = (generation + i64::from(!same)).into();
        object["metadata"]["uid"] = before["metadata"]["uid"].clone();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["status"].is_null() && !before["status"].is_null() {
            object["status"] = before["status"].clone();
        }
        self.objects.insert(key, object.clone());
        self.log.push((self.version, plural.to_owned(), type_, object));
    }

    /// Takes a request in, and says which fault is told instead of an answer; who is not permitted is refused, and a server
    /// that is gone hears nothing.
    fn receive(&mut self, target: &Target, seen: &Seen) -> Result<Option<u16>, Option<String>> {
        self.requests.push(seen.clone());
        if self.gone {
            return Err(None);
        }
        let exists = self.exists(target);
        if let Some(rights) = &mut self.rights {
            rights.ask(&seen.method, &seen.path, &seen.query, exists).map_err(Some)?;
        }
        let plural = &target.plural;
        let mut fault = self.faults.get_mut(plural).and_then(VecDeque::pop_front);
        if fault.is_none() && seen.method == Method::PATCH {
            fault = self.patch_faults.get_mut(plural).and_then(VecDeque::pop_front);
        }
        Ok(fault.or(self.unknown.contains(plural).then_some(404)))
    }

    fn exists(&self, target: &Target) -> bool {
        let name = target.name.clone().unwrap_or_default();
        self.objects.contains_key(&(target.plural.clone(), target.namespace.clone(), name))
    }

    /// Removes an object, and what it owns.
    fn remove(&mut self, key: &Key) {
        let Some(mut object) = self.objects.remove(key) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let uid = object["metadata"]["uid"].clone();
        self.log.push((self.version, key.0.clone(), "DELETED", object));
        let is_owned = |object: &&Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
        };
        let owned = self.objects.iter().filter(|(_, object)| is_owned(object));
        let owned: Vec<Key> = owned.map(|(key, _)| key.clone()).collect();
        owned.iter().for_each(|key| self.remove(key));
    }

    /// A server-side apply of one manager: what it had and does not name any more goes, the rest is merged.
    fn apply(&mut self, target: &Target, body: &Value) -> (u16, Value) {
        let name = target.name.clone().unwrap_or_default();
        let key = (target.plural.clone(), target.namespace.clone(), name);
        let mut object = self.objects.get(&key).cloned().unwrap_or_else(|| json!({}));
        let code = if object["metadata"].is_null() { 201 } else { 200 };
        let had = object["metadata"]["managedFields"][0]["fieldsV1"].clone();
        let mut has = json!({});
        for part in ["metadata", "spec"] {
            let mut wanted = body[part].clone();
            if let Some(fields) = wanted.as_object_mut() {
                fields.retain(|name, _| name != "name" && name != "namespace");
            }
            has[format!("f:{part}")] = fields_of(&wanted);
            give_up(&mut object[part], &had[format!("f:{part}")], &wanted);
            merge_deep(&mut object[part], &body[part]);
        }
        object["metadata"]["managedFields"] = json!([{"manager": "penstock-controlplane",
            "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": has}]);
        self.put(&target.plural, object);
        (code, self.objects[&key].clone())
    }

    fn all<'a>(&'a self, plural: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((of, ..), _)| of == plural).map(|(_, object)| object)
    }

    fn first(&self, plural: &str) -> Vec<Value> {
        let mut lines: Vec<Value> =
            self.all(plural).map(|object| json!({"type": "ADDED", "object": object})).collect();
        lines.push(json!({"type": "BOOKMARK", "object": {"kind": "K", "apiVersion": "v1", "metadata": {
            "resourceVersion": self.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}));
        lines
    }

    fn one(&mut self, method: &Method, target: &Target, body: Value) -> (u16, Value) {
        let Some(name) = target.name.clone() else {
            if method == Method::POST {
                let mut body = body;
                if !target.namespace.is_empty() {
                    body["metadata"]["namespace"] = target.namespace.as_str().into();
                }
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (target.plural.clone(), target.namespace.clone(), name);
                if self.objects.contains_key(&key) {
                    return (409, status(409));
                }
                self.put(&target.plural, body);
                return (201, self.objects[&key].clone());
            }
            let items: Vec<_> = self.all(&target.plural).cloned().collect();
            let version = self.version.to_string();
            return (
                200,
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            );
        };
        let key = (target.plural.clone(), target.namespace.clone(), name);
        let Some(before) = self.objects.get(&key).cloned() else { return (404, status(404)) };
        if method == Method::GET {
            return (200, before);
        }
        if method == Method::DELETE {
            let asked = &body["preconditions"]["uid"];
            if !asked.is_null() && *asked != before["metadata"]["uid"] {
                return (409, status(409));
            }
            self.remove(&key);
            return (200, before);
        }
        for guard in ["resourceVersion", "uid"] {
            let asked = &body["metadata"][guard];
            if !asked.is_null() && *asked != before["metadata"][guard] {
                return (409, status(409));
            }
        }
        let mut object = before;
        match (method == Method::PUT, target.subresource.as_deref()) {
            (true, _) => object = body,
            (false, Some("status")) => merge(&mut object["status"], &body["status"]),
            (false, _) => merge(&mut object["metadata"], &body["metadata"]),
        }
        self.put(&target.plural, object);
        (200, self.objects[&key].clone())
    }
}

fn merge(into: &mut Value, patch: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in patch.as_object().into_iter().flatten() {
        into[name] = value.clone();
    }
}

/// The fields of a value, as `managedFields` names them; owners are told apart by uid.
fn fields_of(value: &Value) -> Value {
    let mut fields = json!({});
    for (name, value) in value.as_object().into_iter().flatten() {
        fields[format!("f:{name}")] = match value.as_array() {
            Some(items) => {
                let key = |item: &Value| format!("k:{}", json!({"uid": item["uid"]}));
                items
                    .iter()
                    .map(|item| (key(item), json!({})))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
            None => fields_of(value),
        };
    }
    fields
}

/// Takes out of `value` what `had` names and `wanted` does not.
fn give_up(value: &mut Value, had: &Value, wanted: &Value) {
    for (field, inner) in had.as_object().into_iter().flatten() {
        let name = field.trim_start_matches("f:");
        match (&wanted[name], value.get_mut(name)) {
            (_, None) => {}
            (Value::Null, Some(_)) => drop(value.as_object_mut().unwrap().remove(name)),
            (wanted @ Value::Object(_), Some(value)) => give_up(value, inner, wanted),
            (_, Some(_)) => {}
        }
    }
}

fn merge_deep(into: &mut Value, patch: &Value) {
    match patch.as_object() {
        None => *into = patch.clone(),
        Some(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            fields.iter().for_each(|(name, value)| merge_deep(&mut into[name], value));
        }
    }
}

fn forbidden(refusal: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "message": refusal, "reason": "Forbidden"})
}

fn status(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": format!("told to say {code}"), "reason": reason})
}

async fn answer(code: u16, value: &Value) -> Response<Channel<Bytes>> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    sender.send_data(Bytes::from(value.to_string())).await.unwrap();
    Response::builder().status(StatusCode::from_u16(code).unwrap()).body(body).unwrap()
}
