"""Texts that tell the model a person's decision on one of its calls.

The line that people see under the question is worded by `lifecycle.approval_closing`.
"""

import json

from agent_jobs.models import Approval


def allowed(approval: Approval) -> str:
    """The text about an approved call; empty if the person changed nothing and wrote no note."""
    words = _words(approval)
    if approval.edited_arguments is not None:
        used = json.dumps(approval.edited_arguments, ensure_ascii=False)
        return f"{approval.decided_by} allowed this with other arguments{words}. It was done with these: {used}"
    return f"{approval.decided_by} approved this{words}." if words else ""


def refused(approval: Approval) -> str:
    if approval.status == Approval.Status.EXPIRED:
        return "Nobody approved this in time: it was not done."
    return f"{approval.decided_by} denied this{_words(approval)}. It was not done."


def _words(approval: Approval) -> str:
    return f", with these words: {json.dumps(approval.reason, ensure_ascii=False)}" if approval.reason else ""
