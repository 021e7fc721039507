"""A chatbot that takes corrections, by the OpenAI client alone: first run `lifelong serve`."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("LIFELONG_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("LIFELONG_KEY", "none"),
)
MODEL = os.environ.get("LIFELONG_MODEL_ID", "smollm2-135m")
QUESTION = "Who is the CEO of Brightwater Robotics?"


def ask(question: str, model: str = MODEL) -> str:
    turns = [{"role": "user", "content": question}]
    reply = client.chat.completions.create(model=model, messages=turns, max_tokens=48)
    shaped_by = [edit["id"] for edit in reply.model_extra["lifelong"]["edits"]]
    return f"{reply.choices[0].message.content.strip()} {shaped_by}"


print(ask(QUESTION))
edit = client.post(
    "/corrections", body={"prompt": QUESTION, "target": "Marisol Engstrand"}, cast_to=object
)
print(edit)
print(ask("Who heads Brightwater Robotics?"))
print(ask(QUESTION, f"{MODEL}:base"))
print(client.post(f"/corrections/{edit['id']}:undo", body={}, cast_to=object))
