//! A store that fails as stores do, by a seed: errors before and after an operation took effect, answers that never come,
//! throttling, listings that lag behind, and a crash of the run that uses it, whose last operation takes effect at
//! once, later, when another run is at work, or never. Or the run only seems to have crashed: it stands still, or
//! cannot reach the store, and goes on when another one is at work. To it, it is the clock that has leapt.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

/// How many earlier states listings may show.
const PAST: usize = 24;

/// A store that fails, as one run has it.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    shared: Arc<Shared>,
    run: u32,
}

#[derive(Debug)]
struct Shared {
    objects: InMemory,
    state: Mutex<State>,
    crashed: Notify,
    /// Runs that were cut off go on.
    healed: Notify,
}

struct State {
    random: ChaCha8Rng,
    /// Faults in a thousand operations.
    faults: u32,
    operations: u64,
    /// The run that began last, and when it is to crash.
    run: u32,
    crash_at: Option<u64>,
    /// Runs that nobody answers any more.
    dead: HashSet<u32>,
    /// Runs that get no answer until so many operations have been.
    cut_off: HashMap<u32, u64>,
    /// So many operations are turned away.
    throttled: u32,
    /// What takes effect when so many operations have been.
    on_its_way: Vec<(u64, Effect)>,
    past: Vec<InMemory>,
    /// What readers of files that begin so see, which must not change.
    watched: Option<(Path, Vec<(Path, Bytes)>)>,
    violations: Vec<String>,
}

type Effect = Box<dyn FnOnce(&InMemory) + Send>;

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} operations", self.operations)
    }
}

/// What happens to an operation.
enum Fate {
    Done,
    FailsBefore,
    FailsAfter,
    HangsBefore,
    HangsAfter,
}

impl FaultyStore {
    /// A store without objects, and without faults until they are asked for.
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            random: ChaCha8Rng::seed_from_u64(seed),
            faults: 0,
            operations: 0,
            run: 0,
            crash_at: None,
            dead: HashSet::new(),
            cut_off: HashMap::new(),
            throttled: 0,
            on_its_way: vec![],
            past: vec![],
            watched: None,
            violations: vec![],
        };
        let (objects, crashed, healed) = (InMemory::new(), Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { objects, state: Mutex::new(state), crashed, healed }), run: 0 }
    }

    /// From now on so many faults in a thousand operations.
    pub(crate) fn fails(&self, faults: u32) {
        self.shared.state.lock().faults = faults;
    }

    /// The store as another run has it, which is to crash in that many operations, if at all.
    pub(crate) fn begins(&self, crash_in: Option<u64>) -> Self {
        let mut state = self.shared.state.lock();
        state.run += 1;
        state.throttled = 0;
        state.crash_at = crash_in.map(|operations| state.operations + operations);
        Self { shared: Arc::clone(&self.shared), run: state.run }
    }

    /// Waits for the crash.
    pub(crate) async fn crashed(&self) {
        self.shared.crashed.notified().await;
    }

    /// Nobody answers this run any more.
    pub(crate) fn crash(&self) {
        self.shared.state.lock().dead.insert(self.run);
    }

    /// Whether this run is only cut off, and will go on.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.shared.state.lock().cut_off.contains_key(&self.run)
    }

    /// Files in this folder whose names begin with no dot are what readers see: once there they must stay as they are.
    pub(crate) fn watch(&self, folder: &str) {
        self.shared.state.lock().watched = Some((Path::from(folder), vec![]));
    }

    /// What readers have seen change.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.state.lock().violations.clone()
    }

    /// The objects themselves.
    pub(crate) fn objects(&self) -> &InMemory {
        &self.shared.objects
    }

    /// All that is on its way arrives, and who was cut off goes on.
    pub(crate) fn settle(&self) {
        let late = std::mem::take(&mut self.shared.state.lock().on_its_way);
        late.into_iter().for_each(|(_, effect)| self.shared.apply(effect));
        self.shared.state.lock().cut_off.clear();
        self.shared.healed.notify_waiters();
    }

    /// Waits until this run is answered.
    async fn answered(&self) {
        loop {
            let healed = self.shared.healed.notified();
            let (is_dead, is_cut_off) = {
                let state = self.shared.state.lock();
                (state.dead.contains(&self.run), state.cut_off.contains_key(&self.run))
            };
            match (is_dead, is_cut_off) {
                (true, _) => return std::future::pending().await,
                (_, true) => healed.await,
                _ => return,
            }
        }
    }

    async fn operation<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&InMemory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = &self.shared;
        shared.arrive();
        // Others get their turn, so that operations of several pipelines are mixed.
        if shared.chance(300) {
            tokio::task::yield_now().await;
        }
        self.answered().await;
        if shared.is_to_crash(self.run) {
            if shared.chance(700) {
                shared.crash_during(self.run, Box::new(|objects| drop(effect(objects))));
                return std::future::pending().await;
            }
            shared.cut_off(self.run);
            self.answered().await;
        }
        match shared.fate() {
            Fate::Done => shared.done(effect),
            Fate::FailsBefore => Err(failed()),
            Fate::FailsAfter => shared.done(effect).and_then(|_| Err(failed())),
            Fate::HangsBefore => std::future::pending().await,
            Fate::HangsAfter => {
                let _ = shared.done(effect);
                std::future::pending().await
            }
        }
    }

    /// The objects as a listing shows them.
    fn listed(&self) -> InMemory {
        let mut state = self.shared.state.lock();
        let lags = state.faults > 0 && state.random.random_bool(0.3) && !state.past.is_empty();
        match lags {
            true => {
                let past = state.past.len();
                let at = state.random.random_range(0..past);
                state.past[at].fork()
            }
            false => self.shared.objects.fork(),
        }
    }
}

fn failed() -> Error {
    Error::Generic { store: "faulty", source: "503 slow down".into() }
}

/// Operations of memory are done at once.
fn now<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    work.now_or_never().unwrap_or_else(|| Err(failed()))
}

impl Shared {
    /// What was on its way takes effect in its time, and who was cut off goes on.
    fn arrive(&self) {
        let late: Vec<Effect> = {
            let mut state = self.state.lock();
            state.operations += 1;
            let now = state.operations;
            state.cut_off.retain(|_, until| *until > now);
            self.healed.notify_waiters();
            let (due, waiting) = std::mem::take(&mut state.on_its_way).into_iter().partition(|(at, _)| *at <= now);
            state.on_its_way = waiting;
            let due: Vec<(u64, Effect)> = due;
            due.into_iter().map(|(_, effect)| effect).collect()
        };
        late.into_iter().for_each(|effect| self.apply(effect));
    }

    fn chance(&self, in_a_thousand: u32) -> bool {
        self.state.lock().random.random_ratio(in_a_thousand, 1000)
    }

    fn is_to_crash(&self, run: u32) -> bool {
        let state = self.state.lock();
        state.run == run && state.crash_at.is_some_and(|at| state.operations >= at)
    }

    /// A run seems to have crashed.
    fn cut_off(&self, run: u32) {
        let mut state = self.state.lock();
        state.crash_at = None;
        let until = state.operations + state.random.random_range(1..80);
        state.cut_off.insert(run, until);
        self.crashed.notify_one();
    }

    fn crash_during(&self, run: u32, effect: Effect) {
        let fate = {
            let mut state = self.state.lock();
            state.dead.insert(run);
            state.crash_at = None;
            state.random.random_range(0..4)
        };
        match fate {
            0 => self.apply(effect),
            1 | 2 => {
                let mut state = self.state.lock();
                let at = state.operations + state.random.random_range(1..40);
                state.on_its_way.push((at, effect));
            }
            _ => {}
        }
        self.crashed.notify_one();
    }

    fn fate(&self) -> Fate {
        let mut state = self.state.lock();
        if state.throttled > 0 {
            state.throttled -= 1;
            return Fate::FailsBefore;
        }
        let faults = state.faults;
        if !state.random.random_ratio(faults, 1000) {
            return Fate::Done;
        }
        match state.random.random_range(0..10) {
            0..=3 => Fate::FailsBefore,
            4..=6 => Fate::FailsAfter,
            7 => {
                state.throttled = state.random.random_range(1..4);
                Fate::FailsBefore
            }
            8 => Fate::HangsBefore,
            _ => Fate::HangsAfter,
        }
    }

    fn apply(&self, effect: Effect) {
        let _ = self.done(|objects| {
            effect(objects);
            Ok(())
        });
    }

    /// Carries something out, and looks at what readers see then.
    fn done<T>(&self, effect: impl FnOnce(&InMemory) -> Result<T>) -> Result<T> {
        let before = self.objects.fork();
        let done = effect(&self.objects);
        let mut state = self.state.lock();
        state.past.push(before);
        if state.past.len() > PAST {
            state.past.remove(0);
        }
        if let Some((folder, seen)) = state.watched.take() {
            let sees = self.visible(&folder);
            let changed = seen.iter().filter(|file| !sees.contains(file));
            let changed: Vec<String> = changed.map(|(path, _)| format!("{path} has changed, or is gone")).collect();
            state.violations.extend(changed);
            state.watched = Some((folder, sees));
        }
        done
    }

    fn visible(&self, folder: &Path) -> Vec<(Path, Bytes)> {
        let found: Vec<ObjectMeta> = now(self.objects.list(Some(folder)).try_collect()).unwrap_or_default();
        let paths = found.into_iter().map(|object| object.location);
        let paths = paths.filter(|path| path.filename().is_some_and(|name| !name.starts_with('.')));
        let bytes = |path: &Path| now(async { self.objects.get(path).await?.bytes().await });
        paths.filter_map(|path| Some((path.clone(), bytes(&path).ok()?))).collect()
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a faulty store")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        let to = to.clone();
        self.operation(move |objects| now(objects.put_opts(&to, bytes, options))).await
    }

    async fn put_multipart_opts(&self, to: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.operation(|_| Ok(())).await?;
        Ok(Box::new(FaultyUpload { store: self.clone(), to: to.clone(), parts: Arc::default(), next: 0 }))
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let from = from.clone();
        self.operation(move |objects| now(objects.get_opts(&from, options))).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (from, ranges) = (from.clone(), ranges.to_vec());
        self.operation(move |objects| now(objects.get_ranges(&from, &ranges))).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let own = self.clone();
        let delete = move |location: Result<Path>| {
            let own = own.clone();
            async move {
                let location = location?;
                let path = location.clone();
                own.operation(move |objects| now(objects.delete(&path))).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (own, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let shown = own.listed();
            let listed = move |_: &InMemory| now(shown.list(prefix.as_ref()).try_collect::<Vec<_>>());
            Ok::<_, Error>(stream::iter(own.operation(listed).await?.into_iter().map(Ok)))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (shown, prefix) = (self.listed(), prefix.cloned());
        self.operation(move |_| now(shown.list_with_delimiter(prefix.as_ref()))).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.operation(move |objects| now(objects.copy_opts(&from, &to, options))).await
    }
}

/// An upload whose parts may be lost on their way.
#[derive(Debug)]
struct FaultyUpload {
    store: FaultyStore,
    to: Path,
    parts: Arc<Mutex<Vec<Option<PutPayload>>>>,
    next: usize,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        let (store, parts, at) = (self.store.clone(), Arc::clone(&self.parts), self.next);
        self.next += 1;
        let arrive = move |_: &InMemory| {
            let mut parts = parts.lock();
            let count = parts.len().max(at + 1);
            parts.resize(count, None);
            parts[at] = Some(bytes);
            Ok(())
        };
        Box::pin(async move { store.operation(arrive).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (parts, to, count) = (Arc::clone(&self.parts), self.to.clone(), self.next);
        let complete = move |objects: &InMemory| {
            // As with stores, an upload is known until it is completed.
            let parts = std::mem::take(&mut *parts.lock());
            let whole: Option<Vec<PutPayload>> = parts.into_iter().collect();
            let whole = whole.filter(|whole| whole.len() == count && count > 0);
            let whole =
                whole.ok_or_else(|| Error::NotFound { path: to.to_string(), source: "no such upload".into() })?;
            let bytes: Vec<u8> =
                whole.iter().flat_map(|part| part.iter().flatten().copied().collect::<Vec<_>>()).collect();
            now(objects.put(&to, bytes.into()))
        };
        self.store.operation(complete).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.lock().clear();
        Ok(())
    }
}
