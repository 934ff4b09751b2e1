// What the page does with the rest of the web UI.
(function () {
    "use strict";

    /** Puts a prompt into txt2img's box, tells gradio, and goes there. */
    window.pivotalSendToTxt2img = function (prompt) {
        const box = gradioApp().querySelector("#txt2img_prompt textarea");
        if (!box) {
            return;
        }
        box.value = prompt;
        updateInput(box);
        switch_to_txt2img();
    };
})();
