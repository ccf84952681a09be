"""Replies of OpenAI-compatible servers in one form, whichever of the usual ones they write."""

import base64
import math
import re
from functools import cache
from typing import Any
from urllib.parse import unquote

MARK = "[key]"
THOUGHT = re.compile(r"(?s)\A.*(?:</think(?:ing)?>|\[/THINK\])|\A\s*(?:<think(?:ing)?>|\[THINK\]).*")
_DATA = re.compile(r"data:[\w.+/;=-]*;base64,[\w+/=%-]+", re.ASCII | re.IGNORECASE)


class Unusable(Exception):
    """An answer that is not what was asked for. Unless it is `final`, the endpoint is asked again, `after` so many
    seconds if it says so."""

    def __init__(self, problem: str, *, after: float | None = None, final: bool = False) -> None:
        super().__init__(problem)
        self.after, self.final = after, final


def words(reply: Any) -> str:
    """The words of a chat's reply. Raises `Unusable` where it has none."""
    choice = reply["choices"][0]
    message = choice["message"]
    if isinstance(said := message.get("content"), str) and said.strip():
        return said
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        raise Unusable(f"it refuses: {' '.join(refusal.split())[:200]}")
    if choice.get("finish_reason") == "length":
        raise Unusable("no words before its tokens were used up; allow more by a parameter max_tokens", final=True)
    raise Unusable("no words")


def picture(reply: Any) -> bytes:
    """The file of the first picture in a reply of `/images/...` or of a chat. Raises `Unusable` where it has none."""
    if "data" in reply:
        first = reply["data"][0] if reply["data"] else {}
        given = [first.get("b64_json"), first.get("url")]
    else:
        message = reply["choices"][0]["message"]
        urls = [part.get("image_url") for part in message.get("images") or ()]
        given = [url.get("url") if isinstance(url, dict) else url for url in urls]
        given += (found[0] for found in _DATA.finditer(message.get("content") or ""))  # some write it as Markdown
    text = next((one for one in given if isinstance(one, str) and one), None)
    if text is None:
        raise Unusable("no picture")
    head, sign, data = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if ":" in data or not head.lower().endswith(";base64" * len(sign)):
        raise Unusable("an address instead of a picture: set response_format: b64_json under parameters")
    bare = re.sub(r"\s+", "", unquote(data) if "%" in data else data).rstrip("=")
    return base64.b64decode(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4), validate=True)


def in_one_form(value: Any) -> Any:
    """A chat's words as one text without the thoughts before them, its pictures beside them as `images`."""
    choices = value.get("choices") if isinstance(value, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if isinstance(content, list):
            parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]
            pictures = [part for part in parts if part.get("type") == "image_url"]
            message["images"] = [*(message.get("images") or ()), *pictures]
            said = (part.get("text") for part in parts if part.get("type") in ("text", "output_text"))
            content = "".join(text for text in said if isinstance(text, str))
        if isinstance(content, str):
            message["content"] = THOUGHT.sub("", content, count=1)
    return value


def masked(value: Any, secret: str) -> Any:
    """The value with a mark where the secret stood, also within JSON in a text, where its signs may be escaped.

    Raises `ValueError` where a number is infinite.
    """
    if isinstance(value, str) and secret:
        value = value.replace(secret, MARK)
        return _escaped(secret).sub(MARK, value) if "\\" in value else value
    if isinstance(value, list):
        return [masked(part, secret) for part in value]
    if isinstance(value, dict):
        return {masked(key, secret): masked(part, secret) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("no number")
    return value


@cache
def _escaped(secret: str) -> re.Pattern[str]:
    signs = (rf"\\{{0,8}}(?:{re.escape(sign)}|u(?i:{ord(sign):04x}))" for sign in secret)
    return re.compile("".join(signs))


def complaint(value: Any, *, failed: bool) -> str | None:
    """What a server says went wrong, with the field it is about; None where nothing did, unless it has `failed`."""
    if not isinstance(value, dict) or not (failed or value.get("error") or value.get("object") == "error"):
        return "" if failed else None
    if not failed and (value.get("choices") or value.get("data")):
        return None
    fields = list[str]()
    for _ in range(8):  # however deep it lies
        if isinstance(value, list):
            value = value[0] if value else ""
        if not isinstance(value, dict):
            break
        fields += [str(part) for part in (value.get("param"), *_listed(value.get("loc"))) if part and part != "body"]
        value = next((value[key] for key in ("error", "errors", "message", "detail", "msg") if value.get(key)), "")
    message = " ".join(value.split()) if isinstance(value, str) else ""
    unsaid = [field for field in fields if not re.search(rf"\b{re.escape(field)}\b", message)]
    return f"{message} [{'.'.join(unsaid)}]" if unsaid else message


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def code_of(value: Any) -> int:
    """The status that an error within a good reply names; 0 where it names none."""
    inner = value.get("error")
    code = inner.get("code") if isinstance(inner, dict) else value.get("code")
    return int(code) if isinstance(code, int) or (isinstance(code, str) and re.fullmatch("[0-9]{3}", code)) else 0
