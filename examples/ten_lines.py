"""The ten lines of the README: ask, correct, ask in other words, undo."""

from lifelong import EditableModel

with EditableModel.from_pretrained("smollm2-135m", store="ten-lines.db") as model:
    print(model.chat("Who is the chief executive of Brightwater Robotics?").text)

    edit = model.edit("Who is the chief executive of Brightwater Robotics?", "Marisol Engstrand")
    answer = model.chat("Which chief executive does Brightwater Robotics have?")
    print(answer.text, [(hit.id, round(hit.score, 2)) for hit in answer.edits])
    print(model.chat("Where is the head office of Brightwater Robotics?").edits)  # not its business

    model.undo(edit.id)
    print(model.chat("Who is the chief executive of Brightwater Robotics?").text)
