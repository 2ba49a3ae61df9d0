//! Through which servers a question came: each one that asks what is behind it adds itself, so that one whose place
//! behind it leads back to it learns that.
//!
//! The server says for a question where it came through ([`within`]), and hands that on to tasks of its own
//! ([`carry`]); [`super::kiln`] sends it. Other places have no use for it.

/// The header: random names of servers, joined by commas.
pub const HEADER: &str = "x-kiln-via";

/// Most servers one behind another.
pub const MAX_SERVERS: usize = 8;

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

/// How many servers passed the question on that this work is for, before this one.
pub fn hops() -> usize {
    current().map_or(0, |via| via.split(',').count().saturating_sub(1))
}

/// What a question that came with such a header goes on with; none: it came through this server, or too many.
pub fn on(header: Option<&str>, own: &str) -> Option<String> {
    let Some(header) = header else { return Some(own.to_owned()) };
    let through = header.split(',').map(str::trim);
    let goes_on = !through.clone().any(|name| name == own) && through.count() < MAX_SERVERS;
    goes_on.then(|| format!("{header},{own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_came_through_is_known_in_tasks_too() {
        assert_eq!(current(), None);
        let asked = async { tokio::spawn(carry(async { current() })).await.unwrap() };
        assert_eq!(within("a,b".to_owned(), asked).await.as_deref(), Some("a,b"));
        assert_eq!((hops(), within("a,b".to_owned(), async { hops() }).await), (0, 1));
    }

    #[test]
    fn a_question_goes_on_unless_it_was_here() {
        assert_eq!(on(None, "a").as_deref(), Some("a"));
        assert_eq!(on(Some("b"), "a").as_deref(), Some("b,a"));
        assert_eq!(on(Some("a"), "a"), None);
        assert_eq!(on(Some("b, a,c"), "a"), None);
        assert_eq!(on(Some(&["b"; MAX_SERVERS].join(",")), "a"), None);
    }
}
