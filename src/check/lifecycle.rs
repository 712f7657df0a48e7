//! What the bucket's lifecycle rules remove: parts of uploads that nobody completes, and uploads
//! that nobody commits.

use std::collections::BTreeMap;

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter, Tag,
    TransitionDefaultMinimumObjectSize,
};

use super::problem::Problem;
use super::requests::add_md5;
use super::{Check, Line};
use crate::upload::PENDING_TAG;

const PARTS: &str = "lifecycle";
const PENDING: &str = "lifecycle-pending";
const FIX: &str = "let `presignd check --fix-lifecycle` add the rule";

/// The lifetime of the session of an upload in parts.
const MIN_DAYS_OF_PARTS: i32 = 7;
/// What `--fix-lifecycle` gives an upload that nobody commits.
const DAYS_OF_PENDING: i32 = 1;

/// The rules of a bucket, and the setting that is replaced together with them.
#[derive(Clone, Debug, Default)]
struct Rules {
    all: Vec<LifecycleRule>,
    smallest_to_move: Option<TransitionDefaultMinimumObjectSize>,
}

impl Check {
    /// The rule for pending uploads is added only if the store `keeps_tags`.
    pub(super) async fn lifecycle(&self, fix: bool, keeps_tags: bool) -> Vec<Line> {
        let has_pending = self.pending_prefixes().next().is_some();
        let mut rules = match self.lifecycle_rules().await {
            Ok(rules) => rules,
            Err(problem) => {
                let checks = [PARTS].into_iter().chain(has_pending.then_some(PENDING));
                let has_none =
                    problem.is_not_implemented() || matches!(problem, Problem::Unreadable);
                let unknown = |check| {
                    if check == PENDING && has_none {
                        return line_of_missing_support();
                    }
                    problem.unknown(check, "s3:GetLifecycleConfiguration")
                };
                return checks.map(unknown).collect();
            }
        };
        let mut missing = self.missing(&rules.all, keeps_tags);
        if !fix {
            missing.clear();
        }
        let kept = rules.all.len();
        let mut added = BTreeMap::new();
        // One by one: MinIO refuses the rule for parts, and would refuse both.
        for (check, rule) in missing {
            let read = self.add(rules.clone(), rule).await;
            added.insert(check, read.map(|read| rules = read));
        }
        let mut lines = vec![match added.get(PARTS) {
            Some(Err(problem)) => line_of_refused(PARTS, problem),
            _ => line_of_parts(&rules.all),
        }];
        if has_pending {
            lines.push(match added.get(PENDING) {
                Some(Err(problem)) => line_of_refused(PENDING, problem),
                _ => self.line_of_pending(&rules.all, fix && !keeps_tags),
            });
        }
        let beside = match kept {
            0 => String::new(),
            _ => format!(", beside those that were there: {kept}"),
        };
        for line in &mut lines {
            if let Some(Ok(())) = added.get(line.check) {
                line.detail = format!("{}; the rule has been added{beside}", line.detail);
            }
        }
        lines
    }

    /// The fixed prefixes of the keys of pending uploads.
    fn pending_prefixes(&self) -> impl Iterator<Item = &str> {
        let samples = self.samples.iter();
        samples.filter_map(|sample| sample.pending_prefix.as_deref())
    }

    async fn lifecycle_rules(&self) -> Result<Rules, Problem> {
        let call = self.client.get_bucket_lifecycle_configuration();
        let answer = call.bucket(&self.bucket).send().await;
        match answer.map_err(Problem::from) {
            Ok(output) => Ok(Rules {
                all: output.rules.unwrap_or_default(),
                smallest_to_move: output.transition_default_minimum_object_size,
            }),
            Err(problem) if problem.means_no_rules() => Ok(Rules::default()),
            Err(problem) => Err(problem),
        }
    }

    /// Our own rules, with the check that needs each, without those whose effect another rule has.
    fn missing(
        &self,
        rules: &[LifecycleRule],
        keeps_tags: bool,
    ) -> Vec<(&'static str, LifecycleRule)> {
        let mut missing = Vec::new();
        if days_of_parts(rules).is_none() {
            let abort = AbortIncompleteMultipartUpload::builder();
            let rule = rule("presignd-unfinished-uploads")
                .filter(LifecycleRuleFilter::builder().prefix("").build())
                .abort_incomplete_multipart_upload(
                    abort.days_after_initiation(MIN_DAYS_OF_PARTS).build(),
                );
            missing.push((PARTS, rule.build()));
        }
        let has_pending = self.pending_prefixes().next().is_some();
        if has_pending && keeps_tags && self.days_of_pending(rules).is_none() {
            let (name, value) = PENDING_TAG;
            let tag = Tag::builder().key(name).value(value).build();
            let expiration = LifecycleExpiration::builder().days(DAYS_OF_PENDING);
            let rule = rule("presignd-pending-uploads")
                .filter(LifecycleRuleFilter::builder().set_tag(tag.ok()).build())
                .expiration(expiration.build());
            missing.push((PENDING, rule.build()));
        }
        // The builder needs a status, which ours have.
        let built = missing.into_iter();
        built
            .filter_map(|(check, rule)| Some((check, rule.ok()?)))
            .collect()
    }

    /// Adds `our` rule to those of the bucket, and reads them again to see that it is in force.
    ///
    /// A store that ignores the tag of a rule would expire every object. So a rule that is not read
    /// back as it was written is removed at once.
    async fn add(&self, rules: Rules, our: LifecycleRule) -> Result<Rules, Problem> {
        let mut wanted = rules.clone();
        // It may exist, but be disabled or changed.
        wanted.all.retain(|rule| rule.id() != our.id());
        wanted.all.push(our.clone());
        let written = match self.set_lifecycle(wanted).await {
            Err(problem) if problem.is_refusal() => return Err(problem),
            // After any other error they may be in force nevertheless.
            written => written,
        };
        let why = match (self.lifecycle_rules().await, written) {
            (Ok(read), _) if is_there(&our, &read.all) => return Ok(read),
            (_, Err(problem)) => problem.to_string(),
            (Ok(_), Ok(())) => "the store does not keep them as they are written".to_owned(),
            (Err(problem), Ok(())) => format!("they cannot be read after that: {problem}"),
        };
        let detail = match self.set_lifecycle(rules).await {
            Ok(()) => format!("{why}, so its former rules were set again"),
            Err(problem) => format!(
                "{why}, and its former rules cannot be set again ({problem}): remove the rules whose names begin with presignd- AT ONCE, as they may expire every object"
            ),
        };
        Err(Problem::NotSent(detail))
    }

    async fn set_lifecycle(&self, rules: Rules) -> Result<(), Problem> {
        if rules.all.is_empty() {
            let delete = self.client.delete_bucket_lifecycle();
            delete.bucket(&self.bucket).send().await?;
            return Ok(());
        }
        let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules.all));
        let configuration = configuration
            .build()
            .map_err(|error| Problem::NotSent(error.to_string()))?;
        self.client
            .put_bucket_lifecycle_configuration()
            .bucket(&self.bucket)
            .lifecycle_configuration(configuration)
            .set_transition_default_minimum_object_size(rules.smallest_to_move)
            .customize()
            .mutate_request(add_md5)
            .send()
            .await?;
        Ok(())
    }

    fn days_of_pending(&self, rules: &[LifecycleRule]) -> Option<i32> {
        let prefixes: Vec<&str> = self.pending_prefixes().collect();
        let days = rules.iter().filter(|rule| is_for_pending(rule, &prefixes));
        days.filter_map(|rule| rule.expiration()?.days()).min()
    }

    /// `is_left_out` says that the rule should have been added, but was not.
    fn line_of_pending(&self, rules: &[LifecycleRule], is_left_out: bool) -> Line {
        if let Some(days) = self.days_of_pending(rules) {
            let detail = format!("uploads that nobody commits expire after {}", in_days(days));
            return Line::ok(PENDING, detail);
        }
        let (name, value) = PENDING_TAG;
        let which = if rules.iter().any(has_pending_tag) {
            format!(
                "a rule for the tag {name}={value} is disabled, expires nothing, or is for a part of the uploads only: by other tags, a prefix or a size"
            )
        } else {
            format!(
                "no rule expires objects with the tag {name}={value}, so uploads that nobody commits stay for ever"
            )
        };
        if is_left_out {
            let why = "the rule was not added, because `tags` is not ok: a store that ignores the tag of a rule would expire every object";
            return Line::warning(PENDING, format!("{which}; {why}"))
                .fix("fix the check `tags` first, as its line says");
        }
        Line::warning(PENDING, which).fix(format!("{FIX}, once `tags` is ok"))
    }
}

/// Whether one of the rules is for the same objects as `our` rule and does the same with them.
fn is_there(our: &LifecycleRule, rules: &[LifecycleRule]) -> bool {
    let tag = |rule: &LifecycleRule| rule.filter().and_then(LifecycleRuleFilter::tag).cloned();
    rules.iter().any(|rule| {
        rule.id() == our.id()
            && rule.status() == our.status()
            && tag(rule) == tag(our)
            && rule.expiration().and_then(LifecycleExpiration::days)
                == our.expiration().and_then(LifecycleExpiration::days)
            && rule.abort_incomplete_multipart_upload() == our.abort_incomplete_multipart_upload()
    })
}

fn rule(id: &str) -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
    LifecycleRule::builder()
        .id(id)
        .status(ExpirationStatus::Enabled)
}

/// The line for uploads that have to be committed where the store has no rules.
fn line_of_missing_support() -> Line {
    let detail = "the store has no such rules, so uploads that nobody commits stay for ever";
    Line::warning(PENDING, detail).fix("remove them yourself, or remove `pending` from the policy")
}

/// The line of a rule that cannot be added.
fn line_of_refused(check: &'static str, problem: &Problem) -> Line {
    let detail = format!("the rule cannot be added: {problem}");
    if check == PARTS && problem.is_refusal() && !problem.is_denied() {
        return Line::warning(check, detail)
            .fix("read what the store itself does with unfinished uploads: see docs/stores.md");
    }
    let fix = problem.fix("s3:PutLifecycleConfiguration");
    let fix = fix.unwrap_or_else(|| "add the rule as docs/stores.md shows".to_owned());
    Line::failed(check, detail).fix(fix)
}

fn line_of_parts(rules: &[LifecycleRule]) -> Line {
    const MISSING: &str = "no rule removes the parts of uploads that nobody completes; they cost money until they are removed";
    let Some(days) = days_of_parts(rules) else {
        return Line::warning(PARTS, MISSING).fix(format!(
            "{FIX}: AbortIncompleteMultipartUpload for the whole bucket, {MIN_DAYS_OF_PARTS} days or more"
        ));
    };
    let detail = format!("unfinished uploads expire after {}", in_days(days));
    if days < MIN_DAYS_OF_PARTS {
        return Line::warning(PARTS, detail)
            .fix("set 7 days or more: clients may continue a multipart upload that long");
    }
    Line::ok(PARTS, detail)
}

fn in_days(count: i32) -> String {
    match count {
        1 => "1 day".to_owned(),
        _ => format!("{count} days"),
    }
}

fn days_of_parts(rules: &[LifecycleRule]) -> Option<i32> {
    let abort = |rule: &LifecycleRule| {
        let abort = rule.abort_incomplete_multipart_upload()?;
        abort.days_after_initiation()
    };
    let rules = rules.iter().filter(|rule| {
        let scope = Scope::of(rule);
        scope.is_enabled && scope.tags.is_empty() && !scope.has_size && scope.is_for(&[""])
    });
    rules.filter_map(abort).min()
}

fn has_pending_tag(rule: &LifecycleRule) -> bool {
    let is_pending = |tag: &&Tag| (tag.key(), tag.value()) == PENDING_TAG;
    Scope::of(rule).tags.iter().any(is_pending)
}

/// Whether the rule is for all pending uploads, whose keys begin with one of `prefixes`, and not
/// for all objects.
fn is_for_pending(rule: &LifecycleRule, prefixes: &[&str]) -> bool {
    let scope = Scope::of(rule);
    let has_other = scope
        .tags
        .iter()
        .any(|tag| (tag.key(), tag.value()) != PENDING_TAG);
    scope.is_enabled
        && !scope.tags.is_empty()
        && !has_other
        && !scope.has_size
        && scope.is_for(prefixes)
}

/// The objects that a rule applies to: those that meet all of these conditions.
struct Scope<'a> {
    is_enabled: bool,
    tags: Vec<&'a Tag>,
    prefixes: Vec<&'a str>,
    has_size: bool,
}

impl<'a> Scope<'a> {
    fn of(rule: &'a LifecycleRule) -> Self {
        #[expect(deprecated, reason = "older rules have it")]
        let prefix = rule.prefix();
        let filter = rule.filter();
        let and = filter.and_then(LifecycleRuleFilter::and);
        let tags = filter.and_then(LifecycleRuleFilter::tag).into_iter();
        let prefixes = [
            prefix,
            filter.and_then(LifecycleRuleFilter::prefix),
            and.and_then(LifecycleRuleAndOperator::prefix),
        ];
        let sizes = [
            filter.and_then(LifecycleRuleFilter::object_size_greater_than),
            filter.and_then(LifecycleRuleFilter::object_size_less_than),
            and.and_then(LifecycleRuleAndOperator::object_size_greater_than),
            and.and_then(LifecycleRuleAndOperator::object_size_less_than),
        ];
        Self {
            is_enabled: rule.status() == &ExpirationStatus::Enabled,
            tags: tags
                .chain(and.into_iter().flat_map(LifecycleRuleAndOperator::tags))
                .collect(),
            prefixes: prefixes.into_iter().flatten().collect(),
            has_size: sizes.iter().any(Option::is_some),
        }
    }

    /// Whether it contains all keys with one of these prefixes.
    fn is_for(&self, beginnings: &[&str]) -> bool {
        let has = |prefix: &&str| beginnings.iter().all(|key| key.starts_with(*prefix));
        self.prefixes.iter().all(has)
    }
}
