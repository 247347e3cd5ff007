"""The sample family: one pre-trained base, eight experts fine-tuned from it, and their tasks.

`tasks` draws the images, `training` trains, `build` puts the two together and writes `drawn/`.
"""
