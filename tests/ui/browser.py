"""The page as its events see it: a browser without pictures, and its elements by id."""

import asyncio
import json

from lib_pivotal.ui.form import TABLE, Form


def element(blocks, elem_id):
    return next(block for block in blocks.blocks.values() if getattr(block, "elem_id", None) == elem_id)


class Browser:
    """Calls events as a browser does: values of all inputs, as JSON."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.values = {}
        self.state = {
            number: block.value for number, block in blocks.blocks.items() if block.get_block_name() == "state"
        }

    def value(self, block_id):
        if block_id not in self.values:
            block = self.blocks.blocks[block_id]
            self.values[block_id] = getattr(block, "value", None)
        return self.values[block_id]

    def set(self, elem_id, value):
        self.values[element(self.blocks, elem_id)._id] = value

    def press(self, elem_id, event="click"):
        target = element(self.blocks, elem_id)._id
        for number, dependency in enumerate(self.blocks.dependencies):
            if target in dependency["targets"] and dependency["trigger"] == event and dependency["backend_fn"]:
                return self._call(number, dependency)
        raise AssertionError(f"{elem_id} has no {event}")

    def _call(self, number, dependency):
        inputs = json.loads(json.dumps([self.value(block) for block in dependency["inputs"]], default=str))
        answer = asyncio.run(self.blocks.process_api(number, inputs, state=self.state))["data"]
        assert len(answer) == len(dependency["outputs"])
        for block, value in zip(dependency["outputs"], answer, strict=True):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" in value:
                    self.values[block] = value["value"]
            else:
                self.values[block] = value
        return {
            getattr(self.blocks.blocks[b], "elem_id", b): v for b, v in zip(dependency["outputs"], answer, strict=True)
        }

    def run(self):
        return Form.read([self.value(element(self.blocks, entry.elem_id)._id) for entry in TABLE])[0]
