"""Rows in the schemas of public data sets, written for these tests: the fields are the sets', the texts are ours."""

from __future__ import annotations

import json
from typing import Any

Row = dict[str, Any]
Pair = tuple[str, str, float | None]
"""The chosen answer, the rejected one, and the margin."""


def chat(*texts: str, role: str = "role", text: str = "content", names: tuple[str, str] = ("user", "assistant")) -> Any:
    return [{role: names[index % 2], text: said} for index, said in enumerate(texts)]


def sharegpt(*texts: str, **more: Any) -> Any:
    return [message | more for message in chat(*texts, role="from", text="value", names=("human", "gpt"))]


QUESTIONS = ("Why is the sky blue?", "Name a river.", "How much is 2 + 2?", "What melts ice?", "Who wrote Faust?")
GOOD = ("Light scatters.", "The Rhine.", "Four.", "Heat, or salt.", "Goethe did.")
BAD = ("It is painted.", "A lake.", "Five, I think.", "Cold air.", "Nobody knows.")
FIVE = list(zip(QUESTIONS, GOOD, BAD, strict=True))


def arrow(items: list[Row]) -> Row:
    """A list of objects as the columns that older versions of `datasets` make of it."""
    return {key: [item[key] for item in items] for key in items[0]}


def both(index: int, good: str, bad: str) -> tuple[str, str]:
    """The two answers, the better one second in every other row."""
    return (good, bad) if index % 2 == 0 else (bad, good)


HELPSTEER2 = [
    {
        "split": "train",
        "prompt": q,
        "response_1": both(i, g, b)[0],
        "response_2": both(i, g, b)[1],
        "preference_strength": (-3, 2, -1, 0, -2)[i],
        "preference_statement": "@Response 1 is better",
        "preference_elaboration": "",
        "three_most_similar_preferences": [],
        "all_preferences_unprocessed": [],
    }
    for i, (q, g, b) in enumerate(FIVE)
]
HELPSTEER3 = [
    {
        "domain": "general",
        "language": "english",
        "context": chat("Hello.", "Hello!", q)[: (1, 3)[i % 2]] if i % 2 else chat(q),
        "response1": both(i, g, b)[0],
        "response2": both(i, g, b)[1],
        "overall_preference": (-3, 2, -1, 0, -2)[i],
        "individual_preference": [{"score": -2, "reasoning": "r", "feedback1": "f", "feedback2": "f"}],
    }
    for i, (q, g, b) in enumerate(FIVE)
]
NECTAR = [
    {
        "prompt": f"\n\nHuman: {q}\n\nAssistant: ",
        "answers": [
            {"answer": g, "model": "m", "rank": 1.0},
            {"answer": b, "model": "n", "rank": 3.0},
            {"answer": "Perhaps.", "model": "o", "rank": 2.0},
        ],
        "turns": 1,
        "num_responses": 3,
        "source": ["sharegpt"],
        "good_natured": True,
    }
    for q, g, b in FIVE
]
SAFE = [
    {
        "prompt": q,
        "response_0": both(i, g, b)[0],
        "response_1": both(i, g, b)[1],
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "better_response_id": i % 2,
        "safer_response_id": 1 - i % 2,
    }
    for i, (q, g, b) in enumerate(FIVE)
]
SHP = [
    {
        "post_id": "p",
        "domain": "askscience_train",
        "upvote_ratio": 0.9,
        "history": q,
        "c_root_id_A": "a",
        "c_root_id_B": "b",
        "created_at_utc_A": 1,
        "created_at_utc_B": 2,
        "score_A": 9 - 6 * (i % 2),
        "score_B": 3 + 6 * (i % 2),
        "human_ref_A": both(i, g, b)[0],
        "human_ref_B": both(i, g, b)[1],
        "labels": 1 - i % 2,
        "seconds_difference": 1.0,
        "score_ratio": 3.0,
    }
    for i, (q, g, b) in enumerate(FIVE)
]


def rated(text: str, score: float) -> Row:
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {
        "annotations": {name: {"Rating": str(int(score)), "Rationale": "r"} for name in aspects},
        "custom_system_prompt": "s",
        "model": "m",
        "principle": "p",
        "response": text,
        "critique": "c",
        "fine-grained_score": score,
        "overall_score": 10.0,
    }


ULTRA = [
    {
        "source": "evol_instruct",
        "instruction": q,
        "models": ["m", "n"],
        "completions": [rated(b, 2.0), rated(g, 4.5)],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }
    for q, g, b in FIVE
]
ULTRA_BINARIZED = [
    {
        "prompt": q,
        "prompt_id": "i",
        "chosen": chat(q, g),
        "rejected": chat(q, b),
        "messages": chat(q, g),
        "score_chosen": 8.5,
        "score_rejected": 3.0,
    }
    for q, g, b in FIVE
]
ULTRA_ARGILLA = [
    {
        "source": "s",
        "prompt": q,
        "chosen": chat(q, g),
        "chosen-rating": 5.0,
        "chosen-model": "m",
        "rejected": chat(q, b),
        "rejected-rating": 2.5,
        "rejected-model": "n",
    }
    for q, g, b in FIVE
]
SKYWORK = [{"chosen": chat(q, g), "rejected": chat(q, b), "source": "s"} for q, g, b in FIVE]
ORCA = [{"system": "", "question": q, "chosen": g, "rejected": b} for q, g, b in FIVE]
LLAMA_FACTORY = [
    {"conversations": sharegpt(q), "chosen": sharegpt(q, g)[1], "rejected": sharegpt(q, b)[1]} for q, g, b in FIVE
]
ARGILLA_CHAT = [{"messages": chat(q), "chosen": chat(q, g)[1], "rejected": chat(q, b)[1]} for q, g, b in FIVE]
WEBGPT = [
    {
        "question": {"dataset": "eli5", "id": "i", "full_text": q},
        "quotes_0": {"extract": [], "title": []},
        "answer_0": both(i, g, b)[0],
        "tokens_0": {"completion": [], "prefix": []},
        "score_0": (1 - 2 * (i % 2)) * (i < 4) * 0.5,
        "quotes_1": {"extract": [], "title": []},
        "answer_1": both(i, g, b)[1],
        "tokens_1": {"completion": [], "prefix": []},
        "score_1": -(1 - 2 * (i % 2)) * (i < 4) * 0.5,
    }
    for i, (q, g, b) in enumerate(FIVE)
]
SUMMARIES = [
    {
        "info": {"id": "t3", "post": q, "title": "A question", "subreddit": "science", "site": None, "article": None},
        "summaries": [{"text": said, "policy": "sup", "note": None} for said in both(i, g, b)],
        "choice": i % 2,
        "worker": "w",
        "batch": "b",
        "split": "train",
        "extra": {"confidence": None},
    }
    for i, (q, g, b) in enumerate(FIVE)
]
ARENA = [
    {
        "question_id": "i",
        "model_a": "m",
        "model_b": "n",
        "winner": ("model_a", "model_b", "tie", "tie (bothbad)", "model_a")[i],
        "judge": "j",
        "conversation_a": chat(q, both(i, g, b)[0]),
        "conversation_b": chat(q, both(i, g, b)[1]),
        "turn": 1,
        "anony": True,
        "language": "English",
        "tstamp": 1.0,
        "openai_moderation": {},
        "toxic_chat_tag": {},
    }
    for i, (q, g, b) in enumerate(FIVE)
]
ARENA_55K = [
    {
        "id": i,
        "model_a": "m",
        "model_b": "n",
        "prompt": json.dumps([q]),
        "response_a": json.dumps([both(i, g, b)[0]]),
        "response_b": json.dumps([both(i, g, b)[1]]),
        "winner_model_a": int(i in (0, 4)),
        "winner_model_b": int(i == 1),
        "winner_tie": int(i in (2, 3)),
    }
    for i, (q, g, b) in enumerate(FIVE)
]
HH = [
    {"chosen": f"\n\nHuman: {q}\n\nAssistant: {g}", "rejected": f"\n\nHuman: {q}\n\nAssistant: {b}"} for q, g, b in FIVE
]


def message(text: str, role: str, rank: int | None = None, replies: list[Row] | None = None, **more: Any) -> Row:
    return {
        "message_id": text,
        "text": text,
        "role": role,
        "lang": "en",
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "replies": replies or [],
        **more,
    }


OASST = [
    {
        "message_tree_id": q,
        "tree_state": "ready_for_export",
        "prompt": message(
            q,
            "prompter",
            None,
            [
                message(b, "assistant", 1),
                message(g, "assistant", 0, [message("Thanks!", "prompter")]),
                message("Spam.", "assistant", 2, deleted=True),
            ],
        ),
    }
    for q, g, b in FIVE
]


def flat(tree: Row) -> list[Row]:
    """A tree as its messages, one a row."""

    def rows(node: Row, parent: str | None) -> list[Row]:
        fields = {key: value for key, value in node.items() if key != "replies"}
        row = {
            **fields,
            "parent_id": parent,
            "message_tree_id": tree["message_tree_id"],
            "tree_state": "ready_for_export",
        }
        return [row] + [found for reply in node["replies"] for found in rows(reply, node["message_id"])]

    return rows(tree["prompt"], None)


OASST_FLAT = [row for tree in OASST for row in flat(tree)]
ALL: list[Pair] = [(g, b, None) for _, g, b in FIVE]
DECIDED: list[Pair] = [(g, b, None) for _, g, b in (FIVE[0], FIVE[1], FIVE[4])]
PREFERENCES: list[tuple[str, str, list[Row], list[Pair], int]] = [
    (
        "HelpSteer2-preference",
        "helpsteer2",
        HELPSTEER2,
        [(GOOD[i], BAD[i], margin) for i, margin in ((0, 3.0), (1, 2.0), (2, 1.0), (4, 2.0))],
        1,
    ),
    (
        "HelpSteer3",
        "helpsteer3",
        HELPSTEER3,
        [(GOOD[i], BAD[i], margin) for i, margin in ((0, 3.0), (1, 2.0), (2, 1.0), (4, 2.0))],
        1,
    ),
    (
        "Nectar",
        "nectar",
        NECTAR,
        [
            pair
            for g, b in zip(GOOD, BAD, strict=True)
            for pair in ((g, "Perhaps.", None), (g, b, None), ("Perhaps.", b, None))
        ],
        0,
    ),
    ("PKU-SafeRLHF", "safe-rlhf", SAFE, ALL, 0),
    ("SHP", "shp", SHP, [(g, b, 6.0) for _, g, b in FIVE], 0),
    ("UltraFeedback", "ultrafeedback", ULTRA, [(g, b, 2.5) for _, g, b in FIVE], 0),
    ("UltraFeedback binarized", "ranking", ULTRA_BINARIZED, [(g, b, 5.5) for _, g, b in FIVE], 0),
    ("UltraFeedback of Argilla", "ranking", ULTRA_ARGILLA, [(g, b, 2.5) for _, g, b in FIVE], 0),
    ("Skywork", "ranking", SKYWORK, ALL, 0),
    ("Orca-DPO", "ranking", ORCA, ALL, 0),
    ("ShareGPT pairs", "ranking", LLAMA_FACTORY, ALL, 0),
    ("chat pairs", "ranking", ARGILLA_CHAT, ALL, 0),
    ("WebGPT", "webgpt", WEBGPT, [(g, b, 1.0) for _, g, b in FIVE[:4]], 1),
    ("summarize-from-feedback", "summarize-feedback", SUMMARIES, ALL, 0),
    (
        "OpenAI's preferences",
        "openai-preference",
        [
            {
                "input": {"messages": chat(q), "tools": [], "parallel_tool_calls": True},
                "preferred_output": [{"role": "assistant", "content": g}],
                "non_preferred_output": [{"role": "assistant", "content": b}],
            }
            for q, g, b in FIVE
        ],
        ALL,
        0,
    ),
    ("Chatbot Arena", "comparison", ARENA, DECIDED, 2),
    ("LMSYS 55k", "lmsys-55k", ARENA_55K, DECIDED, 2),
    ("hh-rlhf", "ranking", HH, ALL, 0),
    ("OASST, trees", "oasst", OASST, ALL, 0),
    ("OASST, messages", "oasst", OASST_FLAT, ALL, 0),
    (
        "Unified-Feedback",
        "comparison",
        [
            {"id": i, "conv_A": chat(q, b), "conv_B": chat(q, g), "conv_A_rating": 1.0, "conv_B_rating": 3.5}
            for i, (q, g, b) in enumerate(FIVE)
        ],
        [(g, b, 2.5) for _, g, b in FIVE],
        0,
    ),
    (
        "StackExchange preferences",
        "ranked-answers",
        [
            {
                "qid": 1,
                "question": q,
                "answers": [
                    {"answer_id": 1, "author": "a", "pm_score": 2, "selected": False, "text": b},
                    {"answer_id": 2, "author": "c", "pm_score": 5, "selected": True, "text": g},
                ],
                "metadata": ["m"],
            }
            for q, g, b in FIVE
        ],
        [(g, b, 3.0) for _, g, b in FIVE],
        0,
    ),
    (
        "When2Call",
        "ranking",
        [
            {"messages": chat(q), "tools": [], "chosen_response": chat(q, g)[1], "rejected_response": chat(q, b)[1]}
            for q, g, b in FIVE
        ],
        ALL,
        0,
    ),
    (
        "Capybara of Argilla",
        "ranking",
        [
            {
                "conversation": [{"input": q, "output": "Another."}],
                "prompt": q,
                "chosen": chat(q, g),
                "rejected": chat(q, b),
                "rating_chosen": 5,
                "rating_rejected": 3,
            }
            for q, g, b in FIVE
        ],
        [(g, b, 2.0) for _, g, b in FIVE],
        0,
    ),
    (
        "prompts as transcripts",
        "ranking",
        [{"prompt": f"\n\nHuman: {q}\n\nAssistant:", "chosen": f" {g}", "rejected": f" {b}"} for q, g, b in FIVE],
        ALL,
        0,
    ),
]
"""Name, format, rows, the pairs they give, the number of ties."""

TULU = [{"id": "i", "messages": chat(q, g), "source": "s"} for q, g, _ in FIVE]
OPENHERMES = [
    {
        "conversations": sharegpt(q, g, weight=None),
        "source": "s",
        "category": None,
        "system_prompt": None,
        "skip_prompt_formatting": None,
        "model": None,
        "title": None,
    }
    for q, g, _ in FIVE
]
CAPYBARA = [{"source": "s", "conversation": [{"input": q, "output": g}]} for q, g, _ in FIVE]
MAGPIE = [
    {
        "conversation_id": "i",
        "instruction": q,
        "response": g,
        "conversations": sharegpt(q, g),
        "gen_input_configs": {"temperature": 1.0},
        "difficulty": "easy",
        "input_quality": "good",
        "task_category": "Math",
        "llama_guard_2": "safe",
        "instruct_reward": -2.5,
        "min_neighbor_distance": 0.1,
        "repeat_count": 0,
        "language": "EN",
    }
    for q, g, _ in FIVE
]
WILDCHAT = [
    {
        "conversation_hash": "h",
        "model": "m",
        "timestamp": "t",
        "conversation": [
            {**turn, "country": "Spain", "language": "English", "redacted": False, "toxic": False, "turn_identifier": 7}
            for turn in chat(q, g)
        ],
        "turn": 1,
        "language": "English",
        "openai_moderation": [],
        "detoxify_moderation": [],
        "toxic": False,
        "redacted": False,
    }
    for q, g, _ in FIVE
]
DOLLY = [{"instruction": q, "context": "", "response": g, "category": "open_qa"} for q, g, _ in FIVE]
ULTRACHAT = [{"prompt": q, "prompt_id": "i", "messages": chat(q, g)} for q, g, _ in FIVE]
ALPACA = [{"instruction": q, "input": "", "output": g, "history": []} for q, g, _ in FIVE]
TALKS = [
    (
        "Gemini's tuning sets",
        "gemini",
        [
            {
                "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
                "contents": [
                    {"role": "user", "parts": [{"text": q[:3]}, {"text": q[3:]}]},
                    {"role": "model", "parts": [{"text": g}]},
                ],
            }
            for q, g, _ in FIVE
        ],
    ),
    (
        "Glaive's function calls",
        "glaive",
        [
            {
                "system": "SYSTEM: You are a helpful assistant, with no access to external functions.",
                "chat": f"USER: Hello.\n\n\nASSISTANT: Hello! <|endoftext|>\n\n\nUSER: {q}\n\n\nASSISTANT: {g}",
            }
            for q, g, _ in FIVE
        ],
    ),
    ("Tulu 3", "conversation", TULU),
    ("OpenHermes", "conversation", OPENHERMES),
    ("Capybara", "conversation", CAPYBARA),
    ("Magpie", "conversation", MAGPIE),
    ("WildChat", "conversation", WILDCHAT),
    ("Dolly", "pair", DOLLY),
    ("UltraChat", "conversation", ULTRACHAT),
    ("Alpaca", "pair", ALPACA),
    ("LIMA", "conversation", [{"conversations": [q, g], "source": "s"} for q, g, _ in FIVE]),
    ("Aya", "pair", [{"inputs": q, "targets": g, "language": "French"} for q, g, _ in FIVE]),
    ("Firefly", "pair", [{"kind": "k", "input": q, "target": g} for q, g, _ in FIVE]),
    ("Firefly, turns", "conversation", [{"conversation": [{"human": q, "assistant": g}]} for q, g, _ in FIVE]),
    ("NuminaMath", "pair", [{"problem": q, "solution": g, "source": "s"} for q, g, _ in FIVE]),
    ("UltraFeedback binarized, as SFT", "conversation", ULTRA_BINARIZED),
    ("OASST, trees", "oasst", OASST),
    ("OASST, messages", "oasst", OASST_FLAT),
]
"""Name, format, rows: each gives the five questions with their good answers."""
XLAM = [
    {
        "id": i,
        "query": q,
        "answers": f'[{{"name": "look", "arguments": {{"place": "{i}"}}}}]',
        "tools": '[{"name": "look", "description": "d", "parameters": {"place": {"type": "str"}}}]',
    }
    for i, (q, _, _) in enumerate(FIVE)
]
KTO = [{"prompt": q, "completion": g, "desirable": i % 2 == 0} for i, (q, g, _) in enumerate(FIVE)]
