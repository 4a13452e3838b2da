//! The slow lane: while a connection sends many bytes, threads of lower priority drive it.
//!
//! Owns: those threads, and moving a connection onto them and back. Does not: know what is sent; whoever answers marks
//! the response with [`Bulk`]. Called by: `http` and `listener`, for every connection.
//!
//! A film keeps a thread busy with reading, encrypting and copying for as long as viewers take its bytes. On the threads
//! that hear heartbeats and let players in, hundreds of viewers would make each of them wait for all others' turns; on
//! threads that are more polite, the system runs whoever hears a heartbeat first. An idle machine gives them everything.

use std::future::pending;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

/// By how much more polite the threads are than those that serve everything else (`nice`).
#[cfg(target_os = "linux")]
const POLITE: i32 = 10;

/// The most polite a thread can be.
#[cfg(target_os = "linux")]
const MOST_POLITE: i32 = 19;

/// Files that are read at once; the others wait, so that readers are never many against one who hears heartbeats.
const READS: usize = 8;

/// Marks a response that has many bytes: its connection takes the slow lane while they are on their way.
#[derive(Clone, Copy, Debug)]
pub struct Bulk;

/// The threads, which there are from the first film on.
#[derive(Debug)]
pub struct Lane {
    home: Handle,
    /// Inner none: the system gave no threads, and everything stays at home.
    threads: OnceLock<Option<Runtime>>,
}

/// What one connection has on its way.
#[derive(Clone, Debug)]
pub struct Load {
    lane: Arc<Lane>,
    /// Bodies marked as [`Bulk`].
    bodies: watch::Sender<u32>,
}

/// A body on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Loaded(watch::Sender<u32>);

impl Lane {
    /// For connections that are at home on the runtime of the caller.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            home: Handle::current(),
            threads: OnceLock::new(),
        })
    }

    fn threads(&self) -> Option<&Handle> {
        let threads = self.threads.get_or_init(|| {
            let built = Builder::new_multi_thread()
                .worker_threads(available_parallelism().map_or(1, NonZero::get))
                .max_blocking_threads(READS)
                .thread_name("usher-bulk")
                .on_thread_start(yield_to_others())
                .enable_all()
                .build();
            built
                .inspect_err(|error| tracing::error!(%error, "no threads for the bytes of files"))
                .ok()
        });
        threads.as_ref().map(Runtime::handle)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // To wait for threads is not allowed where this is dropped.
        if let Some(Some(runtime)) = self.threads.take() {
            runtime.shutdown_background();
        }
    }
}

impl Load {
    /// Nothing is on its way.
    #[must_use]
    pub fn none(lane: &Arc<Lane>) -> Self {
        Self {
            lane: Arc::clone(lane),
            bodies: watch::Sender::new(0),
        }
    }

    /// A body begins.
    pub(super) fn begin(&self) -> Loaded {
        self.bodies.send_modify(|bodies| *bodies += 1);
        Loaded(self.bodies.clone())
    }

    /// Runs a connection, or a part of one: here, and on the slow lane while a body is on its way.
    pub(super) async fn drive<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let mut future = Box::pin(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.becomes(true) => {}
            }
            let Some(lane) = self.lane.threads() else {
                return future.await;
            };
            let load = self.clone();
            let away = lane.spawn(async move {
                tokio::select! {
                    biased;
                    output = &mut future => Ok(output),
                    () = load.becomes(false) => Err(future),
                }
            });
            match AbortOnDropHandle::new(away).await {
                Ok(Ok(output)) => return output,
                Ok(Err(back)) => future = back,
                Err(gone) => return fail(gone).await,
            }
        }
    }

    /// Runs what is not delivery at home, wherever its connection is just now: what it spawns is for everybody.
    pub(super) async fn at_home<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match AbortOnDropHandle::new(self.lane.home.spawn(future)).await {
            Ok(output) => output,
            Err(gone) => fail(gone).await,
        }
    }

    /// Spawns a part of a connection, which ends with it.
    pub(super) fn spawn_at_home<F>(&self, future: F)
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.lane.home.spawn(future);
    }

    /// Whether its connection is on the slow lane, asked from within.
    pub(super) fn is_away(&self) -> bool {
        Handle::current().id() != self.lane.home.id()
    }

    async fn becomes(&self, loaded: bool) {
        let mut bodies = self.bodies.subscribe();
        // The sender is here: it does not close.
        let _ = bodies.wait_for(|bodies| (*bodies > 0) == loaded).await;
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.send_modify(|bodies| *bodies -= 1);
    }
}

/// A task that ended without an answer: it panicked, as its caller does then, or the process ends.
async fn fail<T>(gone: JoinError) -> T {
    match gone.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => pending().await,
    }
}

/// Lets every other thread of this program go first. On Linux this is about one thread, elsewhere about the process.
fn yield_to_others() -> impl Fn() + Send + Sync {
    // Of the thread that makes the lane: a thread that one of the lane starts has its priority already.
    #[cfg(target_os = "linux")]
    let nice = rustix::process::getpriority_process(None).unwrap_or_default() + POLITE;
    move || {
        #[cfg(target_os = "linux")]
        {
            // Where it is not allowed, the threads are as everybody's.
            let _ = rustix::process::setpriority_process(None, nice.min(MOST_POLITE));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    fn here() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_connection_moves_while_it_is_loaded_and_comes_back() {
        let load = Load::none(&Lane::new());
        let own = load.clone();
        let connection = async move {
            let mut places = vec![here()];
            for _ in 0..2 {
                let body = own.begin();
                // Whoever drives it learns of it at the next turn.
                sleep(Duration::from_millis(5)).await;
                places.push(here());
                assert!(own.is_away());
                let home = own.at_home(async { here() }).await;
                assert_eq!(home, places[0]);
                drop(body);
                sleep(Duration::from_millis(5)).await;
                places.push(here());
                assert!(!own.is_away());
            }
            places
        };
        let places = load.drive(connection).await;
        let home = places[0].clone();
        assert_eq!(places, [&*home, "usher-bulk", &home, "usher-bulk", &home]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_are_more_polite() {
        use rustix::process::getpriority_process;
        let load = Load::none(&Lane::new());
        let own = load.clone();
        let nice = load.drive(async move {
            let _body = own.begin();
            sleep(Duration::from_millis(5)).await;
            let blocking = tokio::task::spawn_blocking(|| getpriority_process(None).unwrap());
            (getpriority_process(None).unwrap(), blocking.await.unwrap())
        });
        let expected = (getpriority_process(None).unwrap() + POLITE).min(MOST_POLITE);
        assert_eq!(nice.await, (expected, expected));
    }

    /// One that is let go is let go on the lane too.
    #[tokio::test]
    async fn a_connection_that_is_dropped_ends() {
        let load = Load::none(&Lane::new());
        let (own, held) = (load.clone(), Arc::new(()));
        let kept = Arc::clone(&held);
        let task = tokio::spawn(async move {
            let inner = own.clone();
            own.drive(async move {
                let (_body, _kept) = (inner.begin(), kept);
                pending::<()>().await;
            })
            .await;
        });
        sleep(Duration::from_millis(20)).await;
        assert_eq!(Arc::strong_count(&held), 2);
        task.abort();
        while Arc::strong_count(&held) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    }
}
