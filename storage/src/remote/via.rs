//! Through which servers a question came: each one that asks what is behind it adds itself, so that one whose place
//! behind it leads back to it learns that.
//!
//! The server says for a question where it came through ([`within`]), and hands that on to tasks of its own
//! ([`carry`]); [`super::kiln`] sends it. Other places have no use for it.

use crate::limits::MAX_HOPS;

/// The header: random names of servers, joined by commas.
pub const HEADER: &str = "x-kiln-via";

tokio::task_local! {
    static VIA: String;
}

/// Does work for a question that came through some servers.
pub async fn within<T>(via: String, work: impl Future<Output = T>) -> T {
    VIA.scope(via, work).await
}

/// Work for a task of its own, for the question that this one is for.
pub fn carry<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let via = current();
    async move {
        match via {
            Some(via) => within(via, work).await,
            None => work.await,
        }
    }
}

/// What a question came through, where that was said.
pub(crate) fn current() -> Option<String> {
    VIA.try_with(Clone::clone).ok()
}

/// Whether a question may be passed on to what is behind a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Onward {
    /// It may, and came through these servers then.
    Through(String),
    /// It came through this server before.
    Circle,
    /// [`MAX_HOPS`] servers have passed it on.
    TooFar,
}

/// What becomes of a question that came with such a header at the server of a name.
pub fn on(header: Option<&str>, own: &str) -> Onward {
    let Some(header) = header else { return Onward::Through(own.to_owned()) };
    let through = header.split(',').map(str::trim);
    if through.clone().any(|name| name == own) {
        Onward::Circle
    } else if through.count() >= MAX_HOPS {
        Onward::TooFar
    } else {
        Onward::Through(format!("{header},{own}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_came_through_is_known_in_tasks_too() {
        assert_eq!(current(), None);
        let asked = async { tokio::spawn(carry(async { current() })).await.unwrap() };
        assert_eq!(within("a,b".to_owned(), asked).await.as_deref(), Some("a,b"));
    }

    #[test]
    fn a_question_goes_on_unless_it_was_here() {
        let through = |names: &str| Onward::Through(names.to_owned());
        assert_eq!(on(None, "a"), through("a"));
        assert_eq!(on(Some("b"), "a"), through("b,a"));
        assert_eq!(on(Some("a"), "a"), Onward::Circle);
        assert_eq!(on(Some("b, a,c"), "a"), Onward::Circle);
        let others = |count| vec!["b"; count].join(",");
        assert_eq!(on(Some(&others(MAX_HOPS - 1)), "a"), through("b,b,b,a"));
        assert_eq!(on(Some(&others(MAX_HOPS)), "a"), Onward::TooFar);
        assert_eq!(on(Some(&(others(9) + ",a")), "a"), Onward::Circle);
    }
}
