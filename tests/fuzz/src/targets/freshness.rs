//! What headers allow the cache to do, against the few rules of RFC 9111 that never have an exception.

use std::time::{Duration, Instant, SystemTime};

use crate::input::Input;
use crate::wire::LinkInfo;

// Private to the worker.
#[path = "../../../../src/worker/cache/policy.rs"]
mod policy;
#[path = "../../../../src/worker/cache/terms.rs"]
#[allow(dead_code, unused_imports, reason = "names that policy knows")]
mod terms;

use policy::{Asked, Policy, Standing};
use terms::{About, MAX_VALIDATOR, Now, Validators};

/// When the answer comes: a date in the middle of what HTTP can say.
const DATE: u64 = 1_700_000_000;

/// An answer, a request, some times, and perhaps a 304.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let taken = Now {
        clock: Instant::now(),
        date: SystemTime::UNIX_EPOCH + Duration::from_secs(DATE),
    };
    let asked = asked(&mut input);
    let sent = headers(&mut input);
    let headers = understood(&sent);
    let mut policy = Policy::new(&asked, &sent, taken);
    let rules = Rules::of(&headers);
    assert!(
        policy.answers(&asked) || rules.varies_always(),
        "not even what it was an answer to"
    );
    assert!(
        !policy.is_shareable() || !rules.forbids_sharing(),
        "shared, though it may not be"
    );
    let default = Duration::from_secs(input.number::<2>());
    assert!(
        policy.negative_for(default) <= default,
        "kept for longer than without a word"
    );

    check(&policy, &rules, &asked, taken, &mut input);
    let other = self::asked(&mut input);
    if !policy.answers(&other) {
        let standing = policy.standing(&other, taken.clock);
        assert_eq!(
            standing,
            Standing::Stale(Validators::default()),
            "an answer to another question"
        );
    }
    if input.flag() {
        let sent = self::headers(&mut input);
        let newer = understood(&sent);
        let later = Duration::from_secs(input.number::<3>());
        let now = Now {
            clock: taken.clock + later,
            date: taken.date + Duration::from_secs(input.number::<4>()),
        };
        if let Some(confirmed) = policy.confirmed(&asked, &sent, now) {
            let rules = Rules::of(&headers);
            if let (Some(old), Some(new)) = (rules.only("etag"), Rules::of(&newer).only("etag")) {
                let strong = |tag| trimmed(tag).strip_prefix(b"W/").unwrap_or(trimmed(tag));
                assert_eq!(strong(old), strong(new), "confirmed by another answer");
            }
            // What the 304 says takes the place of what was stored under the same name.
            let is_said = |name: &str| newer.iter().any(|header| header.0 == name);
            let stored = headers.iter().filter(|header| !is_said(&header.0));
            let merged: Vec<_> = stored.chain(&newer).cloned().collect();
            check_times(&confirmed, &Rules::of(&merged), &asked, now, &mut input);
            policy = confirmed;
        }
        let _ = (
            policy.age(now.clock),
            policy.fresh_for(now.clock),
            policy.is_shareable(),
        );
    }
}

fn check(policy: &Policy, rules: &Rules<'_>, asked: &Asked, taken: Now, input: &mut Input<'_>) {
    if rules.says("no-cache") || rules.varies_always() {
        assert_ne!(
            policy.standing(asked, taken.clock),
            Standing::Fresh,
            "served without asking"
        );
    }
    check_times(policy, rules, asked, taken, input);
}

fn check_times(
    policy: &Policy,
    rules: &Rules<'_>,
    asked: &Asked,
    taken: Now,
    input: &mut Input<'_>,
) {
    let mut times = [
        0,
        input.number::<1>(),
        input.number::<3>(),
        input.number::<4>(),
    ];
    times.sort_unstable();
    let window = Duration::from_secs(input.number::<2>());
    let (mut age, mut left, mut was_stale) = (Duration::ZERO, Duration::MAX, false);
    for seconds in times {
        let passed = Duration::from_secs(seconds);
        let now = taken.clock + passed;
        let (older, fresh_for) = (policy.age(now), policy.fresh_for(now));
        assert!(older >= age && older >= passed, "younger than before");
        assert!(fresh_for <= left, "fresher than before");
        assert!(
            fresh_for <= rules.lifetime().saturating_sub(passed),
            "fresh for longer than anybody said"
        );
        (age, left) = (older, fresh_for);
        match policy.standing(asked, now) {
            Standing::Fresh => {
                assert!(!was_stale && fresh_for > Duration::ZERO, "stale and served");
                assert!(policy.is_useful(asked, window, now));
            }
            Standing::Stale(validators) => {
                was_stale = true;
                for (sent, name) in [
                    (&validators.etag, "etag"),
                    (&validators.last_modified, "last-modified"),
                ] {
                    let Some(sent) = sent else { continue };
                    assert!(sent.len() <= MAX_VALIDATOR, "too long to be sent");
                    assert!(
                        rules.values(name).any(|value| contains(sent, value)),
                        "{name} is nobody's"
                    );
                }
                if policy.allows_stale(asked, window, now) && fresh_for.is_zero() {
                    assert!(
                        !rules.forbids_stale(),
                        "a stale answer where none is allowed"
                    );
                    assert!(
                        older
                            <= window
                                .saturating_add(rules.lifetime())
                                .saturating_add(Duration::from_secs(1)),
                        "stale for too long"
                    );
                }
            }
        }
    }
}

/// Without the white space that HTTP allows around a member of a list.
fn trimmed(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

fn contains(sent: &[u8], value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.is_empty() || sent.windows(value.len()).any(|part| part == value)
}

/// The rules as far as they are plain: each value as it came.
struct Rules<'h>(&'h [(String, Vec<u8>)]);

impl<'h> Rules<'h> {
    fn of(headers: &'h [(String, Vec<u8>)]) -> Self {
        Self(headers)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |header| header.0 == name)
            .map(|header| &*header.1)
    }

    /// The one value of this name, if it is text: what is no header is left out.
    fn only(&self, name: &str) -> Option<&'h [u8]> {
        let mut values = self.values(name);
        values.next().filter(|value| {
            values.next().is_none() && value.iter().all(|byte| (b' '..=b'~').contains(byte))
        })
    }

    /// The directives, in lower case; nothing where a quotation mark might hide a comma.
    fn directives(&self) -> Vec<String> {
        let values: Vec<_> = self.values("cache-control").collect();
        if values.iter().any(|value| {
            value.contains(&b'"') || !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        }) {
            return Vec::new();
        }
        let words = values
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b','));
        words
            .map(|word| String::from_utf8_lossy(word.trim_ascii()).to_ascii_lowercase())
            .collect()
    }

    fn says(&self, directive: &str) -> bool {
        self.directives().iter().any(|said| said == directive)
    }

    fn forbids_sharing(&self) -> bool {
        self.says("no-store") || self.says("private") || self.varies_always()
    }

    fn forbids_stale(&self) -> bool {
        ["must-revalidate", "proxy-revalidate", "no-cache"]
            .iter()
            .any(|directive| self.says(directive))
    }

    fn varies_always(&self) -> bool {
        let mut names = self
            .values("vary")
            .flat_map(|value| value.split(|byte| *byte == b','));
        names.any(|name| trimmed(name) == b"*")
    }

    /// The longest that any header can mean.
    fn lifetime(&self) -> Duration {
        let control: Vec<u8> = self
            .values("cache-control")
            .collect::<Vec<_>>()
            .join(&b',')
            .to_ascii_lowercase();
        if control.windows(7).any(|part| part == b"max-age")
            || control.windows(8).any(|part| part == b"s-maxage")
        {
            let digits = control
                .split(|byte| !byte.is_ascii_digit())
                .filter(|digits| !digits.is_empty());
            let most = digits.map(|digits| {
                str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| digits.parse().ok())
            });
            let most = most
                .map(|number: Option<u64>| number.unwrap_or(u64::MAX))
                .max()
                .unwrap_or(0);
            return Duration::from_secs(most).max(self.expires());
        }
        self.expires()
    }

    fn expires(&self) -> Duration {
        let date_of =
            |value: &[u8]| httpdate::parse_http_date(str::from_utf8(value).ok()?.trim()).ok();
        // The crate also takes dates of mail, which are more than HTTP has.
        let mut all = self.values("expires").chain(self.values("date"));
        if self.values("expires").next().is_some() && all.any(|value| date_of(value).is_none()) {
            return Duration::MAX;
        }
        let dates = |name| self.values(name).filter_map(date_of);
        let seconds = |date: SystemTime| {
            date.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
        };
        let expires = dates("expires").map(seconds).max().unwrap_or_default();
        // A 304 without a date takes the stored one away: then it is as of when that came.
        let received = Duration::from_secs(DATE);
        let date = dates("date")
            .map(seconds)
            .min()
            .map_or(received, |date| date.min(received));
        expires.saturating_sub(date)
    }
}

fn asked(input: &mut Input<'_>) -> Asked {
    let link = LinkInfo {
        key: [1, 2],
        display: "http://h/".into(),
        cache: true,
        identity: input.flag(),
    };
    let about = input.flag().then(|| About {
        client: [192, 0, 2, input.byte() % 4].into(),
        file: input.bytes(8).to_vec(),
        mode: input.pick(&["octet", "netascii"]).into(),
    });
    policy::asked(&link, about.as_ref())
}

const CONTROLS: [&str; 12] = [
    "no-store",
    "private",
    "no-cache",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "immutable",
    "s-maxage=60",
    "max-age=600",
    "Max-Age=5",
    "no-cache=\"set-cookie\"",
    "stale-while-revalidate=30",
];
const VARIES: [&str; 5] = [
    "x-tftp-client",
    "*",
    "Accept-Encoding",
    "X-TFTP-File, x-tftp-mode",
    "cookie",
];

/// Those that are headers: of directives and numbers, the policy makes some.
fn understood(sent: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let is_rewritten = |name| ["cache-control", "pragma", "vary", "age"].contains(&name);
    let is_header = |value| http::HeaderValue::from_bytes(value).is_ok();
    let all = sent.iter();
    all.filter(|(name, value)| is_rewritten(name) || is_header(value))
        .cloned()
        .collect()
}

/// Headers in lower case, as the fetcher has them.
fn headers(input: &mut Input<'_>) -> Vec<(String, Vec<u8>)> {
    let mut headers = Vec::new();
    for _ in 0..input.below(8) {
        let date = |input: &mut Input<'_>| {
            let seconds = (DATE + input.number::<2>()).saturating_sub(0x8000);
            let seconds = if input.byte() % 8 == 7 {
                input.number::<4>() * 40
            } else {
                seconds
            };
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .into_bytes()
        };
        let (name, value) = match input.byte() % 11 {
            0..=2 => ("cache-control", control(input)),
            3 => ("vary", input.pick(&VARIES).into()),
            4 => ("age", input.any_size().to_string().into_bytes()),
            5 => ("date", date(input)),
            6 => (
                "expires",
                if input.flag() {
                    date(input)
                } else {
                    input.bytes(30).to_vec()
                },
            ),
            7 => ("etag", [b"\"", input.bytes(200), b"\""].concat()),
            8 => ("last-modified", date(input)),
            9 => ("pragma", input.pick(&["no-cache", "x"]).into()),
            _ => {
                let names = [
                    "cache-control",
                    "vary",
                    "age",
                    "date",
                    "etag",
                    "last-modified",
                    "content-length",
                ];
                (input.pick(&names), input.bytes(40).to_vec())
            }
        };
        headers.push((name.to_owned(), value));
    }
    headers
}

fn control(input: &mut Input<'_>) -> Vec<u8> {
    let mut words = Vec::new();
    for _ in 0..=input.below(3) {
        words.push(match input.below(CONTROLS.len() + 2) {
            number if number < CONTROLS.len() => CONTROLS[number].to_owned(),
            number if number == CONTROLS.len() => format!("max-age={}", input.any_size()),
            _ => format!("s-maxage={}", input.any_size()),
        });
    }
    words
        .join(input.pick(&[", ", ",", " ,", "\t,\t"]))
        .into_bytes()
}
