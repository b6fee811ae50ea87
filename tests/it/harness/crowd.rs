//! Clients that go on whatever happens, and remember every answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::Receipt;
use super::{Reply, Request};

/// How long a client that was refused waits before it tries again.
const PAUSE: Duration = Duration::from_millis(2);

/// What a client was answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A reply that came whole.
    Whole { status: u16, retry_after: bool, receipt: Option<Receipt> },
    /// None, or one that broke off.
    Broken,
}

impl Answer {
    fn of(reply: Option<Reply>) -> Answer {
        match reply {
            Some(reply) if reply.whole => Answer::Whole {
                status: reply.status(),
                retry_after: reply.field("retry-after").is_some(),
                receipt: reply.receipt(),
            },
            Some(_) | None => Answer::Broken,
        }
    }

    pub(crate) fn has_status(&self, wanted: u16) -> bool {
        matches!(self, Answer::Whole { status, .. } if *status == wanted)
    }
}

/// Some clients, each with the same request again and again, as fast as it is answered.
pub(crate) struct Crowd {
    enough: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn of(count: usize, request: &Request) -> Crowd {
        let (enough, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..count).map(|_| {
            let (request, enough, answers) = (request.clone(), Arc::clone(&enough), Arc::clone(&answers));
            thread::spawn(move || call(&request, &enough, &answers))
        });
        let clients = clients.collect();
        Crowd { enough, answers, clients }
    }

    /// How many answers so far are of this kind.
    pub(crate) fn count(&self, kind: impl Fn(&Answer) -> bool) -> usize {
        self.answers.lock().unwrap().iter().filter(|answer| kind(answer)).count()
    }

    pub(crate) fn served(&self) -> usize {
        self.count(|answer| answer.has_status(200))
    }

    pub(crate) fn refused(&self) -> usize {
        self.count(|answer| answer.has_status(503))
    }

    /// Sends the clients home. Everything that they were answered.
    pub(crate) fn leave(mut self) -> Vec<Answer> {
        self.enough.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Until it is enough, or nobody listens any more.
fn call(request: &Request, enough: &AtomicBool, answers: &Mutex<Vec<Answer>>) {
    while let Some(mut client) = request.try_connect() {
        loop {
            if enough.load(Ordering::Relaxed) {
                return;
            }
            client.send_request(request);
            let answer = Answer::of(client.try_reply());
            let (broken, served) = (matches!(answer, Answer::Broken), answer.has_status(200));
            answers.lock().unwrap().push(answer);
            if !served {
                thread::sleep(PAUSE);
            }
            if broken {
                break;
            }
        }
    }
}
