//! How `docs/runbooks.md` is read.
//!
//! - A heading with fenced blocks below it is a runbook, up to the next one.
//! - `console`: a line that begins with `# ` is a command, over several lines
//!   where they end in `\`. What follows is what one sees: `...` stands for
//!   any text, on a line of its own for any lines. `[exit code N]` ends what
//!   is seen of a command that fails. Nothing below a command: it succeeds,
//!   and what it prints does not matter.
//! - `diff FILE`: what an operator changes in a file.
//! - `sh`: definitions that hold for every command.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub(super) struct Document {
    pub(super) text: String,
    pub(super) definitions: String,
    pub(super) runbooks: Vec<Runbook>,
}

pub(super) struct Runbook {
    pub(super) title: String,
    pub(super) steps: Vec<Step>,
}

pub(super) struct Step {
    /// The line in the document.
    pub(super) line: usize,
    pub(super) does: Does,
}

pub(super) enum Does {
    Run {
        command: String,
        shown: Vec<String>,
        exit: i32,
    },
    Edit {
        file: String,
        old: String,
        new: String,
    },
}

impl Document {
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md");
        Self::parse(&fs::read_to_string(path).expect("the runbooks"))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut document = Self {
            text: text.to_owned(),
            definitions: String::new(),
            runbooks: Vec::new(),
        };
        let mut title = String::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if let Some(heading) = line.strip_prefix('#') {
                title = heading.trim_start_matches('#').trim().to_owned();
            }
            let Some(fence) = line.trim_start().strip_prefix("```") else {
                continue;
            };
            let block: Vec<(usize, &str)> = lines
                .by_ref()
                .map(|(number, line)| (number + 1, line))
                .take_while(|(_, line)| *line != "```")
                .collect();
            let steps = match fence.split_once(' ').unwrap_or((fence, "")) {
                ("console", "") => console(&block),
                ("diff", file) => vec![edit(number + 1, file, &block)],
                ("sh", "") => {
                    for (_, line) in block {
                        document.definitions += &format!("{line}\n");
                    }
                    continue;
                }
                _ => panic!("line {}: a block that nobody executes", number + 1),
            };
            match document.runbooks.last_mut() {
                Some(runbook) if runbook.title == title => runbook.steps.extend(steps),
                _ => document.runbooks.push(Runbook {
                    title: title.clone(),
                    steps,
                }),
            }
        }
        document
    }

    pub(super) fn titles(&self) -> Vec<&str> {
        self.runbooks.iter().map(|r| r.title.as_str()).collect()
    }

    /// Each command of a block.
    pub(super) fn commands<'a>(&'a self) -> BTreeSet<&'a str> {
        let steps = self.runbooks.iter().flat_map(|runbook| &runbook.steps);
        let command = |step: &'a Step| match &step.does {
            Does::Run { command, .. } => Some(command.as_str()),
            Does::Edit { .. } => None,
        };
        steps.filter_map(command).collect()
    }

    /// Commands that are named within a sentence.
    pub(super) fn mentioned(&self) -> Vec<&str> {
        let mut fenced = false;
        let prose = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        });
        let spans = prose.flat_map(|line| line.split('`').skip(1).step_by(2));
        let programs = self.programs();
        let is_command = |span: &&str| {
            let first = span.split_once(' ').map(|(first, _)| first);
            first.is_some_and(|first| programs.contains(first))
        };
        spans.filter(is_command).collect()
    }

    /// The programs that are executed; those of the agent's machine always.
    fn programs(&self) -> BTreeSet<&str> {
        let executed = self.commands().into_iter();
        let executed = executed.filter_map(|command| command.split_whitespace().next());
        let always = ["sealkeeper", "systemctl", "as_agent", "journalctl"];
        executed.chain(always).collect()
    }
}

fn console(block: &[(usize, &str)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (line, text) in block {
        if let Some(command) = text.strip_prefix("# ").filter(|_| !goes_on) {
            steps.push(Step {
                line: *line,
                does: Does::Run {
                    command: command.to_owned(),
                    shown: Vec::new(),
                    exit: 0,
                },
            });
        } else {
            let Some(Does::Run {
                command,
                shown,
                exit,
            }) = steps.last_mut().map(|step| &mut step.does)
            else {
                panic!("line {line}: a block begins with a command, got {text:?}");
            };
            let code = text.strip_prefix("[exit code ");
            if goes_on {
                *command += &format!("\n{text}");
            } else if let Some(code) = code {
                *exit = code.trim_end_matches(']').parse().expect("a code");
            } else {
                shown.push((*text).to_owned());
            }
        }
        goes_on = text.ends_with('\\') && (goes_on || text.starts_with("# "));
    }
    assert!(!steps.is_empty(), "a block without a command");
    steps
}

fn edit(line: usize, file: &str, block: &[(usize, &str)]) -> Step {
    let side = |other: char| -> String {
        let lines = block.iter().filter(|(_, text)| !text.starts_with(other));
        lines
            .map(|(_, text)| format!("{}\n", text.get(1..).unwrap_or_default()))
            .collect()
    };
    Step {
        line,
        does: Does::Edit {
            file: file.to_owned(),
            old: side('+'),
            new: side('-'),
        },
    }
}

/// Whether `output` is what `shown` says; if not, what is missing.
pub(super) fn compare(shown: &[String], output: &str) -> Result<(), String> {
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = output.lines().map(squeeze).collect();
    let (mut at, mut skip) = (0, shown.is_empty());
    for line in shown {
        let line = squeeze(line);
        if line == "..." {
            skip = true;
            continue;
        }
        let reach = if skip {
            lines.len()
        } else {
            lines.len().min(at + 1)
        };
        let mut rest = at..reach;
        let found = rest.find(|n| fits(&line, &lines[*n]));
        at = 1 + found.ok_or_else(|| format!("not shown: {line}"))?;
        skip = false;
    }
    match lines.get(at) {
        Some(more) if !skip => Err(format!("shown too: {more}")),
        _ => Ok(()),
    }
}

/// Whether a line is what a pattern with `...` says.
fn fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}
