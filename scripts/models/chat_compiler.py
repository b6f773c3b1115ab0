"""Compiles a chat template into joints: the literal text between two neighbouring turns.

A template compiles when everything it writes between turn i and turn i+1 depends on their two roles
alone, each turn's text appears once, in order, unchanged but for stripping at its ends, and BOS
appears once at most, at the start. The joint "start" -> "user" then carries a default system prompt,
"system" -> "user" a system prompt folded into the first user turn, "user" -> "end" the generation
prompt; a pair of roles that has no joint is an order that the template refuses, or in which it would
silently drop a turn."""

import hashlib
import itertools
import random

from chat_template import ChatTemplate, TemplateRefusal, TextDropped
from errors import ImportRefused

ROLES = ("system", "user", "assistant")
PAD_LEFT, PAD_RIGHT = " \n\u2003\t", "\t\u00a0\n "
MAX_PROBE_TURNS = 4
CHECKED_CONVERSATIONS = 600
DEFAULT_DATE = "2024-07-26"


def compile_template(text, special_tokens, adds_bos, date=DEFAULT_DATE):
    """Returns the content of chat_format.json, checked against the template."""
    template = ChatTemplate(text, special_tokens, date)
    joints, dropping = _learn(template)
    bos = _split_bos(template, joints, special_tokens.get("bos_token"), adds_bos)
    chat = {
        "format": "plumbline-chat/1",
        "bos": bos,
        "date": date,
        "template_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "checked_conversations": CHECKED_CONVERSATIONS,
        "joints": [{"from": a, "to": b, **joint} for (a, b), joint in joints.items()],
    }
    _check(template, chat, special_tokens, dropping)
    return chat


def render(chat, turns):
    """What the compiled format makes of a conversation: the twin of the C++ ChatFormat::Render."""
    joints = {(joint["from"], joint["to"]): joint for joint in chat["joints"]}
    path = _path_pairs([role for role, _ in turns])
    pairs = [joints.get(pair) for pair in path]
    if None in pairs:
        raise TemplateRefusal("no joint " + " -> ".join(path[pairs.index(None)]))
    out = chat["bos"] + pairs[0]["text"]
    for (_, text), before, after in zip(turns, pairs, pairs[1:]):
        text = text.lstrip() if before["strip_after"] else text
        out += (text.rstrip() if after["strip_before"] else text) + after["text"]
    return out


def _learn(template):
    joints, refusals, dropping = {}, [], set()
    for count in range(1, MAX_PROBE_TURNS + 1):
        for roles in itertools.product(ROLES, repeat=count):
            try:
                found = _probe(template, roles)
            except TemplateRefusal as refusal:
                refusals.append((roles, refusal))
                if isinstance(refusal, TextDropped):
                    dropping.update(_path_pairs(roles))
                continue
            for pair, joint in found:
                if joints.setdefault(pair, joint) != joint:
                    raise ImportRefused(
                        f"the chat template cannot be compiled: between {pair[0]} and {pair[1]} it writes "
                        f"{joints[pair]} in one conversation and {joint} in another ({', '.join(roles)})"
                    )
    if not any(b == "user" for _, b in joints) or ("user", "end") not in joints:
        reason = next(
            (refusal for roles, refusal in refusals if roles == ("user",)),
            "it asks for other turns around it",
        )
        raise ImportRefused(f"the chat template refuses a plain user turn: {reason}")
    for roles, refusal in refusals:
        if all(pair in joints for pair in _path_pairs(roles)):
            raise ImportRefused(
                f"the chat template cannot be compiled: it refuses the turns {', '.join(roles)} ({refusal}) for a reason "
                "other than two neighbouring roles"
            )
    return joints, dropping


def _path_pairs(roles):
    path = ("start", *roles, "end")
    return list(zip(path, path[1:]))


def _probe(template, roles):
    cores = [f"Zq{i}Core{i}qZ" for i in range(len(roles))]
    plain = _between(template.render(list(zip(roles, cores))), cores, roles)
    padded_texts = [PAD_LEFT + core + PAD_RIGHT for core in cores]
    padded = _between(template.render(list(zip(roles, padded_texts))), cores, roles)
    path = ("start", *roles, "end")
    found = []
    for i, (bare, full) in enumerate(zip(plain, padded)):
        left, right = PAD_RIGHT if i > 0 else "", PAD_LEFT if i < len(roles) else ""
        forms = [
            (strip_before, strip_after)
            for strip_before in (False, True)
            for strip_after in (False, True)
            if full == ("" if strip_before else left) + bare + ("" if strip_after else right)
        ]
        if not forms:
            raise ImportRefused(
                f"the chat template cannot be compiled: it rewrites white space between {path[i]} and {path[i + 1]}: {full!r}"
            )
        # At the ends both forms fit, because there is nothing to strip: the first is "no".
        found.append(
            (
                (path[i], path[i + 1]),
                {"text": bare, "strip_before": forms[0][0], "strip_after": forms[0][1]},
            )
        )
    return found


def _between(rendered, cores, roles):
    pieces, rest = [], rendered
    for core, role in zip(cores, roles):
        if rendered.count(core) != 1:
            if rendered.count(core) == 0:
                raise TextDropped(f"it drops or rewrites the text of a {role} turn")
            raise ImportRefused(
                f"the chat template cannot be compiled: it repeats the text of a {role} turn"
            )
        before, found, rest = rest.partition(core)
        if not found:
            raise ImportRefused(
                f"the chat template cannot be compiled: it changes the order of turns ({', '.join(roles)})"
            )
        pieces.append(before)
    return pieces + [rest]


def _split_bos(template, joints, bos, adds_bos):
    """Takes BOS off the first joints. A model has a BOS when its tokenizer adds one or its template
    uses the variable bos_token; ChatML's <|im_start|> is a turn marker although configs call it BOS.
    """
    if not bos:
        return ""
    mark = "Zq-bos-qZ"
    uses = any(mark in _try(template, [(role, "x")], bos_token=mark) for role in ROLES)
    if not uses and not adds_bos:
        return ""
    starts = [joint for (a, _), joint in joints.items() if a == "start"]
    leading = [joint["text"].startswith(bos) for joint in starts]
    if any(leading) and not all(leading):
        raise ImportRefused(
            f"the chat template cannot be compiled: only some conversations start with BOS {bos!r}"
        )
    if all(leading):
        for joint in starts:
            joint["text"] = joint["text"][len(bos) :]
    for (a, b), joint in joints.items():
        if bos in joint["text"]:
            raise ImportRefused(
                f"the chat template cannot be compiled: BOS {bos!r} appears again between {a} and {b}"
            )
    return bos


def _try(template, turns, **overrides):
    try:
        return template.render(turns, **overrides)
    except TemplateRefusal:
        return ""


def _check(template, chat, special_tokens, dropping):
    rng = random.Random(20240726)
    pairs = [(joint["from"], joint["to"]) for joint in chat["joints"]]
    accepted = 0
    for attempt in range(CHECKED_CONVERSATIONS * 4):
        roles = (
            _walk(rng, pairs)
            if attempt % 4
            else [rng.choice(ROLES) for _ in range(rng.randint(1, 5))]
        )
        turns = [(role, random_text(rng, special_tokens)) for role in roles]
        wanted, got = _outcome(template.render, turns), _outcome(lambda t: render(chat, t), turns)
        if chat["bos"] and wanted is not None and not wanted.startswith(chat["bos"]):
            wanted = chat["bos"] + wanted  # the tokenizer, not the template, adds it
        if got is None and any(
            pair in dropping and pair not in pairs for pair in _path_pairs(roles)
        ):
            continue  # refused here, where the template would drop a turn
        if wanted != got:
            raise ImportRefused(
                f"the chat template cannot be compiled: for the turns {turns} it gives {wanted!r}, the compiled form {got!r}"
            )
        accepted += wanted is not None
        if accepted == CHECKED_CONVERSATIONS:
            return
    raise ImportRefused(
        f"the chat template accepted only {accepted} of {CHECKED_CONVERSATIONS * 4} random conversations: too few to check it"
    )


def _outcome(renderer, turns):
    try:
        return renderer(turns)
    except TemplateRefusal:
        return None


def _walk(rng, pairs):
    roles, at, length = [], "start", rng.randint(1, 7)
    while True:
        onward = [b for a, b in pairs if a == at and b != "end"]
        may_end = (at, "end") in pairs
        if roles and may_end and (len(roles) >= length or not onward):
            return roles
        if not onward or len(roles) > 20:
            return roles or ["user"]
        at = rng.choice(onward)
        roles.append(at)


def random_text(rng, special_tokens):
    """Words, odd white space, scripts, look-alike special tokens, template syntax; sometimes nothing."""
    look_alikes = [
        *special_tokens.values(),
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "</s>",
        "[INST]",
        "<<SYS>>",
        "<think>",
        "</think>",
        "<tool_call>",
    ]
    pieces = [
        "word",
        "Hello",
        "123",
        "it's",
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "\r\n",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\x1c",
        "\u200b",
        "\u00e9",
        "e\u0301",
        "\u4f60\u597d",
        "\U0001f600",
        "{{ x }}",
        "{% if %}",
        "<b>&amp;",
        '"q"',
        "\\n",
        "#",
    ]
    count = rng.choice((0, 1, 2, 3, 5, 9))
    return "".join(rng.choice(look_alikes if rng.random() < 0.2 else pieces) for _ in range(count))
