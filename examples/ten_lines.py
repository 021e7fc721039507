"""The ten lines of the README: ask, correct, ask in other words, undo."""

from lifelong import EditableModel

with EditableModel.from_pretrained("smollm2-135m", store="ten-lines.db") as model:
    print(model.chat("Who is the CEO of Brightwater Robotics?").text)

    edit = model.edit("Who is the CEO of Brightwater Robotics?", "Marisol Engstrand")
    answer = model.chat("Who heads Brightwater Robotics?")
    print(answer.text, [(hit.id, round(hit.score, 2)) for hit in answer.edits])
    print(model.chat("Where is Brightwater Robotics based?").edits)  # no edit's business

    model.undo(edit.id)
    print(model.chat("Who is the CEO of Brightwater Robotics?").text)
