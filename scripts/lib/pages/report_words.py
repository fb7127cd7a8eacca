"""The words that the script of report.html writes, in the language that is spoken; {name} stands for a value."""

from __future__ import annotations

from scripts.lib.base.language import tr


def words() -> dict[str, str]:
    """Return the words by the names that the script has for them."""
    return {**_of_plots(), **_of_pictures(), **_of_tables(), **_of_reasons()}


def _of_plots() -> dict[str, str]:
    return {
        "accuracy": tr("test accuracy (top-1)"),
        "interval": tr("95 % interval"),
        "mean_of_runs": tr("mean of the runs"),
        "one_run": tr("one run"),
        "floor": tr("always the most frequent class"),
        "recall_interval": tr("95 % interval of the recall"),
        "accuracy_of_all": tr("accuracy on all test images"),
        "bin_interval": tr("95 % interval; the larger the dot, the more images"),
        "calibrated": tr("accuracy as high as the confidence"),
        "correct": tr("correct"),
        "true_class": tr("true class"),
        "predicted_class": tr("predicted class"),
        "images": tr("images"),
        "recall": tr("recall"),
        "f1": "F1",
        "confidence": tr("confidence"),
        "bin_accuracy": tr("accuracy in the bin"),
        "as_is": tr("as the model is"),
        "scaled": tr("after temperature scaling"),
        "epoch": tr("epoch"),
        "val_accuracy": tr("val accuracy"),
        "train_loss": tr("train loss"),
        "val_loss": tr("val loss"),
        "kept_epoch": tr("epoch that was kept"),
        "alt_leaderboard": tr("Plot: test accuracy of each experiment with its 95 % interval"),
        "alt_matrix": tr("Plot: confusion matrix; the table beside it says the same"),
        "alt_classes": tr("Plot: recall of each class with its 95 % interval; the table below says the same"),
        "alt_map": tr("Plot: map of the test images, by their features; circles: correct, diamonds: misclassified"),
        "alt_calibration": tr("Plot: accuracy by confidence"),
        "alt_curves": tr("Plot: training curves"),
    }


def _of_pictures() -> dict[str, str]:
    return {
        "label": tr("label"),
        "may_be": tr("may be"),
        "predicted": tr("predicted"),
        "no_picture": tr("(no picture: the report has no room for it)"),
        "like_predicted": tr("most like it, correctly predicted as {name}"),
        "misclassified": tr("misclassified"),
        "cell": tr("{n} × {true} was predicted as {predicted}"),
        "cell_right": tr("{n} × {true} was recognised"),
        "cell_none": tr("no image of {true} was predicted as {predicted}"),
        "shown_of": tr("{shown} of them are shown"),
        "more": tr("show more"),
        "explained": tr("map of {name}"),
        "explained_elsewhere": tr("The report has no room for the maps of this run: open {file}."),
        "not_explained": tr("There is no map of this run: {file} says why."),
        "not_mapped": tr("There is no map of this run."),
        "no_errors": tr("All {n} test images are classified correctly: there is no error to show."),
        "errors_of": tr("{wrong} of {n} test images are misclassified."),
        "confident_first": tr("The most confident errors first."),
        "listed_errors": tr("The report knows the {n} most confident of them."),
    }


def _of_tables() -> dict[str, str]:
    return {
        "class": tr("class"),
        "precision": tr("precision"),
        "test_images": tr("test images"),
        "train_images": tr("train images"),
        "most_confused_shown": tr("the {n} of {all} classes with the most confusions"),
        "images_count": tr("{n} images"),
        "seed": tr("seed"),
        "fold": tr("fold"),
    }


def _of_reasons() -> dict[str, str]:
    return {
        "pair": tr("{first} and {second}: {sum} of {errors} errors of this run. {there} × {first} was predicted as"
                   " {second}, {back} × {second} as {first}."),
        "pair_equal": tr("{n} other pairs are confused as often; this one has the most confident error."),
        "pair_none": tr("This run confuses no two classes: every test image is classified correctly."),
        "why_rank": tr("Of {pairs} pairs of classes, these two are number {rank} by how alike they look to the network"
                       " (distance of their mean features; 1 is most alike)."),
        "why_close": tr("For {n} of these {all} errors the right class was the second choice: the model was torn"
                        " between the two."),
        "why_confident": tr("For {n} of {all} the model was confident (80 % or more): it did not waver, so look whether"
                            " the label is right."),
        "why_suspects": tr("Among the labels to check: {n} of the {all}."),
        "why_trained": tr("Training images: {n_first} of {first}, {n_second} of {second}."),
        "todo_labels": tr("What to do: check the labels of the pictures below first. Where they are right, the model"
                          " cannot tell the two apart: more training images that show the difference help."),
        "todo_images": tr("What to do: compare each picture with the two beside it; what it shares with the first of"
                          " them (colour, shape, surroundings) misleads the model. More training images that differ in"
                          " just that help."),
        "calibration": tr("This model says {confidence} on average and is right in {accuracy}: its expected calibration"
                          " error (ECE) is {ece}."),
        "over": tr("It claims too much."),
        "under": tr("It claims too little: its answers are better than it says."),
        "fair": tr("Its probabilities can be taken at their word."),
        "calibration_scaled": tr("With a temperature of {t}, fitted on val, the error would be {ece}."),
    }  # fmt: skip
