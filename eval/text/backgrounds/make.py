"""Renders the pictures beside it anew; run only when the frames or their size change."""

from PIL import Image

from envs.libero.environment import LiberoEnv
from eval.text.scene_backgrounds import FOLDER, FRAMES, SIZE_PX


def main() -> None:
    for frame in FRAMES:
        env = LiberoEnv(frame.suite, frame.task_id)
        env.set_scene({"init_state": 0})
        picture = Image.fromarray(env.simulator.render(frame.camera, SIZE_PX))
        picture.save(FOLDER / frame.file_name, lossless=True, method=6)
        env.close()


if __name__ == "__main__":
    main()
