//! How far something is, on standard error: a bar that redraws itself on a terminal, now and then a line elsewhere.

use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Pace of lines that say nothing but how far it is.
const PACE: Duration = Duration::from_secs(10);
/// Pace at which a terminal shows that something goes on.
const TICK: Duration = Duration::from_millis(120);

/// Of what has parts that are counted, and of what has none.
const BAR: &str = "{spinner} {bar:30} {pos:>3} %  {wide_msg}";
const SPINNER: &str = "{spinner} {wide_msg}";

/// How far something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What happens: a line each.
    pub step: String,
    /// How far that is.
    pub detail: String,
    /// Part that is done, of a hundred, where that is known.
    pub percent: Option<u64>,
}

impl View {
    /// Of what has no parts.
    pub fn step(step: impl Into<String>) -> Self {
        Self { step: step.into(), ..Self::default() }
    }

    /// On one line, beside a bar.
    fn words(&self) -> String {
        let parts = [self.step.as_str(), self.detail.as_str()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// On one line, where there is no bar.
    pub fn line(&self) -> String {
        self.words() + &self.percent.map(|percent| format!(", {percent} %")).unwrap_or_default()
    }
}

/// Shows one thing after the other.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<(View, Instant)>,
}

impl Progress {
    /// A bar where standard error is a terminal.
    pub fn start() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = styled(ProgressBar::new(100), SPINNER);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, last: None }
    }

    /// The same beside a result that is being written: no bar where that goes to a terminal, too.
    pub fn beside_output() -> Self {
        if stdout().is_terminal() { Self { bar: None, last: None } } else { Self::start() }
    }

    /// Shows it.
    pub fn say(&mut self, view: View) {
        if let Some(bar) = &self.bar {
            let bar = styled(bar.clone(), if view.percent.is_some() { BAR } else { SPINNER });
            bar.set_position(view.percent.unwrap_or(0));
            bar.set_message(view.words());
        } else if is_due(self.last.as_ref().map(|(view, at)| (view, at.elapsed())), &view) {
            eprintln!("{}", view.line());
            self.last = Some((view, Instant::now()));
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Whether a line is written: each step is news at once, and how far it is now and then.
fn is_due(last: Option<(&View, Duration)>, view: &View) -> bool {
    last.is_none_or(|(last, since)| last.step != view.step || (last != view && since >= PACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_news_and_parts_of_them_are_told_now_and_then() {
        let view = |step: &str, detail: &str| View { detail: detail.to_owned(), ..View::step(step) };
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(10));
        for (last, now, due) in [
            (None, view("a", ""), true),
            (Some((view("a", "1"), soon)), view("b", "1"), true),
            (Some((view("a", "1"), soon)), view("a", "2"), false),
            (Some((view("a", "1"), late)), view("a", "2"), true),
            (Some((view("a", "1"), late)), view("a", "1"), false),
        ] {
            assert_eq!(is_due(last.as_ref().map(|(view, since)| (view, *since)), &now), due, "{last:?} {now:?}");
        }
        assert_eq!(view("a", "1").line(), "a: 1");
        assert_eq!(view("a", "").line(), "a");
        assert_eq!(View { percent: Some(41), ..view("a", "1") }.line(), "a: 1, 41 %");
    }
}
